// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* The load balancer's way of a TCP or UDP packet (bpf/lib/balance.h), made of the same functions, with an end after
 * each step: what one adds is what it costs. The harness compares the last step with the load balancer itself.
 */
#include "../../../bpf/include/ctx_xdp.h"
#include "../../../bpf/lib/balance.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* In the order of steps.STEPS. */
enum step {
	STEP_PARSE,
	STEP_SERVICE,
	STEP_FLOW,
	STEP_BACKEND,  /* a known flow's, checked; or chosen for a new one */
	STEP_ALLOCATE, /* new flows: a source port, and the reply's entry */
	STEP_ENTER,    /* new flows: the request's entry */
	STEP_NEXT_HOP,
	STEP_REWRITE,
	STEP_COUNT,
	STEP_SEND,
};

/* Constant while loaded: the verifier removes what is behind the last step. */
const volatile __u32 last_step SEC(".rodata.steps");

static COLD int open_flow(const struct packet *packet, const struct service *service, struct flow *flow)
{
	void *map = flow_map(packet->tuple.protocol);
	__u32 hash = slot_hash(&packet->tuple, packet->family);
	const struct backend *backend;

	__builtin_memset(flow, 0, sizeof(*flow));
	if (!address_is_source(&packet->tuple.source, packet->family))
		return 0;
	backend = backend_select(service, hash, &flow->backend_id);
	if (!backend)
		return 0;
	flow->new_destination = backend->address;
	flow->new_destination_port = backend->port;
	flow->lut_id = service->lut_id;
	flow->last_seen = flow_now();
	flow->tcp_flags_seen = packet->tcp_flags;
	if (last_step == STEP_BACKEND)
		return 1;
	if (!snat_allocate(map, &packet->tuple, flow, packet->family, hash))
		return 0;
	if (last_step == STEP_ALLOCATE)
		return 1;
	bpf_map_update_elem(map, &packet->tuple, flow, BPF_ANY);
	return 1;
}

static INLINE int walk_on(context *ctx, struct packet *packet, const struct flow *flow, enum family family)
{
	struct bpf_fib_lookup fib = {};
	struct ethhdr *ethernet;

	if (next_hop(ctx, packet, flow, family, &fib))
		return XDP_ABORTED;
	if (last_step == STEP_NEXT_HOP)
		return XDP_TX;
	ethernet = ctx_data(ctx);
	if ((void *)(ethernet + 1) > ctx_data_end(ctx) || !rewrite(ctx, packet, flow, family, 1))
		return XDP_ABORTED;
	__builtin_memcpy(ethernet->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, fib.smac, ETH_ALEN);
	if (last_step == STEP_REWRITE)
		return XDP_TX;
	count_forwarded(packet, flow);
	count_outcome(OUTCOME_REQUEST_FORWARDED, packet->bytes);
	return last_step == STEP_COUNT ? XDP_TX : ctx_send(fib.ifindex);
}

static INLINE int walk(context *ctx, struct cursor *cursor, struct packet *packet, enum family family)
{
	int outcome = family == FAMILY_IPV4 ? parse_ip4(cursor, packet) : parse_ip6(cursor, packet);
	const struct service *service;
	struct flow opened, *flow;

	packet->family = family;
	if (outcome != UNDECIDED || parse_transport(cursor, packet) != UNDECIDED)
		return XDP_ABORTED;
	if (last_step == STEP_PARSE)
		return XDP_TX;
	if (snat_is_reply(&packet->tuple, family))
		return XDP_ABORTED;
	service = service_lookup(&packet->tuple);
	if (!service || packet->ttl <= 1)
		return XDP_ABORTED;
	if (last_step == STEP_SERVICE)
		return XDP_TX;
	flow = flow_lookup(&packet->tuple);
	if (last_step == STEP_FLOW)
		return XDP_TX;
	if (!likely(flow && flow_continues(packet, flow, service, &outcome))) {
		if (!open_flow(packet, service, &opened))
			return XDP_ABORTED;
		flow = &opened;
	}
	if (last_step <= STEP_ENTER)
		return XDP_TX;
	return walk_on(ctx, packet, flow, family);
}

SEC("xdp")
int steps(struct xdp_md *ctx)
{
	struct cursor cursor = { ctx_data(ctx), ctx_data_end(ctx) };
	struct packet packet = { .bytes = ctx_length(ctx) };
	__be16 protocol;

	if (parse_ethernet(&cursor, &protocol) != UNDECIDED)
		return XDP_ABORTED;
	if (protocol == bpf_htons(ETH_P_IP))
		return walk(ctx, &cursor, &packet, FAMILY_IPV4);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return walk(ctx, &cursor, &packet, FAMILY_IPV6);
	return XDP_ABORTED;
}
