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

static COLD int open_flow(struct scratch *s, const struct service *service)
{
	const struct packet *packet = &s->packet;
	void *map = flow_map(packet->tuple.protocol);
	__u32 hash = slot_hash(&packet->tuple, packet->family);
	const struct backend *backend;
	struct flow *flow = &s->flow;

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

static INLINE int walk_on(context *ctx, struct scratch *s, const struct flow *flow, enum family family)
{
	struct translation to = {
		.source = &flow->new_source,
		.destination = &flow->new_destination,
		.source_port = flow->new_source_port,
		.destination_port = flow->new_destination_port,
	};
	struct packet *packet = &s->packet;
	const struct nexthop *hop;

	if (next_hop(ctx, s, &flow->new_destination, family, route_index_of_backend(ctx, s, flow->backend_id),
		     packet->length, &hop))
		return XDP_ABORTED;
	if (last_step == STEP_NEXT_HOP)
		return XDP_TX;
	if (!rewrite(ctx, packet, &to, family, 1) ||
	    send(ctx, s, hop, family, OUTCOME_REQUEST_FORWARDED) != OUTCOME_REQUEST_FORWARDED)
		return XDP_ABORTED;
	if (last_step == STEP_REWRITE)
		return XDP_TX;
	count_forwarded(flow->lut_id, flow->backend_id, packet->bytes);
	count_outcome(OUTCOME_REQUEST_FORWARDED, packet->bytes);
	return last_step == STEP_COUNT ? XDP_TX : ctx_send(ctx, s->device);
}

static INLINE int walk(context *ctx, struct scratch *s, enum family family)
{
	struct cursor cursor = { ctx_data(ctx) + ETH_HLEN, ctx_data_end(ctx) };
	struct packet *packet = &s->packet;
	const struct service *service;
	const struct lookup *asked;
	const struct flow *flow;
	int outcome;

	packet->family = family;
	outcome = family == FAMILY_IPV4 ? parse_ip4(&cursor, packet) : parse_ip6(&cursor, packet);
	if (outcome != UNDECIDED || parse_transport(&cursor, packet) != UNDECIDED)
		return XDP_ABORTED;
	if (last_step == STEP_PARSE)
		return XDP_TX;
	if (snat_is_reply(&packet->tuple, family))
		return XDP_ABORTED;
	asked = service_find(ctx, &packet->tuple);
	if (!asked || asked->found != FOUND_SERVICE || packet->ttl <= 1)
		return XDP_ABORTED;
	service = &asked->service;
	if (last_step == STEP_SERVICE)
		return XDP_TX;
	flow = flow_lookup(&packet->tuple);
	if (last_step == STEP_FLOW)
		return XDP_TX;
	if (!likely(flow && flow_continues(ctx, packet, flow, service, &outcome))) {
		if (!open_flow(s, service))
			return XDP_ABORTED;
		flow = &s->flow;
	}
	if (last_step <= STEP_ENTER)
		return XDP_TX;
	return walk_on(ctx, s, flow, family);
}

static COLD int walk4(context *ctx, struct scratch *s)
{
	return walk(ctx, s, FAMILY_IPV4);
}

static COLD int walk6(context *ctx, struct scratch *s)
{
	return walk(ctx, s, FAMILY_IPV6);
}

SEC("xdp")
int steps(struct xdp_md *ctx)
{
	struct cursor cursor = { ctx_data(ctx), ctx_data_end(ctx) };
	struct scratch *s = scratch();
	__be16 protocol;

	if (!s)
		return XDP_ABORTED;
	__builtin_memset(&s->packet, 0, sizeof(s->packet));
	s->packet.bytes = ctx_length(ctx);
	if (parse_ethernet(&cursor, &protocol) != UNDECIDED)
		return XDP_ABORTED;
	if (protocol == bpf_htons(ETH_P_IP))
		return walk4(ctx, s);
	if (protocol == bpf_htons(ETH_P_IPV6))
		return walk6(ctx, s);
	return XDP_ABORTED;
}
