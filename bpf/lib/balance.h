/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The load balancer: what becomes of one frame. Every path ends in an outcome. */
#pragma once

#include "backend.h"
#include "flow.h"
#include "icmp.h"
#include "nexthop.h"
#include "rewrite.h"
#include "service.h"
#include "snat.h"
#include "stats.h"

/* What becomes of a packet whose next hop the lookup did not find: `why` is BPF_FIB_LKUP_RET_*. */
static INLINE int not_forwarded(context *ctx, struct packet *packet, const struct flow *flow, enum family family,
				long why)
{
	int outcome = OUTCOME_UNSUPPORTED_ROUTE_DROPPED;

	switch (why) {
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return OUTCOME_NO_ROUTE_DROPPED;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		if (packet->dont_fragment)
			return OUTCOME_TOO_BIG_ANSWERED;
		outcome = OUTCOME_TOO_BIG_DROPPED;
		break;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		outcome = OUTCOME_NO_NEIGHBOUR_DROPPED;
		break;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		outcome = OUTCOME_FORWARDING_DISABLED_DROPPED;
		break;
	}
	/* The stack can forward a reply. A request it would refuse: its source is an address of this node. */
	if (packet->tuple.direction == DIRECTION_REQUEST)
		return outcome;
	if (!rewrite(ctx, packet, flow, family, 0))
		return OUTCOME_TRUNCATED_DROPPED;
	count_forwarded(packet, flow);
	return OUTCOME_REPLY_PASSED;
}

/* Translate and send: `outcome`, or why not. */
static INLINE int forward(context *ctx, struct packet *packet, const struct flow *flow, enum family family,
			  int outcome, __u32 *device)
{
	struct bpf_fib_lookup fib = {};
	struct ethhdr *ethernet;
	long missing;

	missing = next_hop(ctx, packet, flow, family, &fib);
	if (unlikely(missing)) {
		packet->mtu = next_hop_mtu(packet, &fib);
		return not_forwarded(ctx, packet, flow, family, missing);
	}
	ethernet = ctx_data(ctx);
	if ((void *)(ethernet + 1) > ctx_data_end(ctx) || !rewrite(ctx, packet, flow, family, 1))
		return OUTCOME_TRUNCATED_DROPPED;
	__builtin_memcpy(ethernet->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, fib.smac, ETH_ALEN);
	count_forwarded(packet, flow);
	*device = fib.ifindex;
	return outcome;
}

/* Does a packet open a TCP connection: 1 or 0, without a branch. */
static INLINE __u32 packet_opens(const struct packet *packet)
{
	return (packet->tcp_flags & TCP_SYN) / TCP_SYN & ~(packet->tcp_flags / TCP_ACK);
}

/* Not 0 where a flow cannot go on to its backend: gone, or not for new connections where this is one. The id may
 * have a new owner, so the address counts too.
 */
static INLINE __u32 flow_moves(const struct flow *flow, const struct service *service, __u32 opens)
{
	const struct backend *backend = backend_lookup(flow->backend_id);

	if (!backend)
		return 1;
	return (backend->lut_id ^ service->lut_id) | (backend->port ^ flow->new_destination_port) |
	       address_differ(&backend->address, &flow->new_destination) | (opens * backend->state);
}

/* Can a known flow take this packet. Else a new one begins, and `*outcome` is what its first packet counts as. */
static INLINE bool flow_continues(const struct packet *packet, struct flow *flow, const struct service *service,
				  int *outcome)
{
	__u32 now = flow_now();
	__u32 opens = packet_opens(packet);
	__u32 ended = flow_expired(flow, now) | (opens & (flow->state / FLOW_CLOSING));

	*outcome = ended ? OUTCOME_REQUEST_NEW_FLOW : OUTCOME_REQUEST_RESELECTED;
	return likely(!(ended | flow_moves(flow, service, opens))) && flow_seen(packet, flow, now);
}

/* Begin a flow: choose a backend and a source port, and enter both directions. UNDECIDED, or why there is none. */
static COLD int flow_open(const struct packet *packet, const struct service *service, struct flow *flow)
{
	void *map = flow_map(packet->tuple.protocol);
	__u32 hash = slot_hash(&packet->tuple, packet->family);
	const struct backend *backend;

	__builtin_memset(flow, 0, sizeof(*flow));
	if (!address_is_source(&packet->tuple.source, packet->family))
		return OUTCOME_INVALID_ADDRESS_DROPPED;
	backend = backend_select(service, hash, &flow->backend_id);
	if (!backend)
		return config.reject_without_backend ? OUTCOME_NO_BACKEND_ANSWERED : OUTCOME_NO_BACKEND_DROPPED;
	flow->new_destination = backend->address;
	flow->new_destination_port = backend->port;
	flow->lut_id = service->lut_id;
	flow->last_seen = flow_now();
	flow->tcp_flags_seen = packet->tcp_flags;
	if (!snat_allocate(map, &packet->tuple, flow, packet->family, hash))
		return OUTCOME_NO_SNAT_PORT_DROPPED;
	/* Where this fails the next packet finds the reply's entry and takes its port. */
	bpf_map_update_elem(map, &packet->tuple, flow, BPF_ANY);
	return UNDECIDED;
}

/* The flow of a packet from a client, or NULL with the packet's outcome; `*opened` holds it where it is new. */
static INLINE const struct flow *request_flow(const struct packet *packet, struct flow *opened, int *outcome)
{
	const struct service *service = service_lookup(&packet->tuple);
	struct flow *flow;
	int refused;

	if (!service) {
		*outcome = OUTCOME_NO_SERVICE_PASSED;
		if (config.wildcard_entries && address_is_vip(&packet->tuple.destination))
			*outcome = OUTCOME_UNKNOWN_PORT_DROPPED;
		return NULL;
	}
	if (unlikely(packet->ttl <= 1)) {
		*outcome = OUTCOME_TTL_EXPIRED_ANSWERED;
		return NULL;
	}
	*outcome = OUTCOME_REQUEST_NEW_FLOW;
	flow = flow_lookup(&packet->tuple);
	if (likely(flow && flow_continues(packet, flow, service, outcome))) {
		*outcome = OUTCOME_REQUEST_FORWARDED;
		return flow;
	}
	refused = flow_open(packet, service, opened);
	if (refused == UNDECIDED)
		return opened;
	*outcome = refused;
	return NULL;
}

/* The flow that a packet answers, or NULL: then it is no reply, or (`*outcome`) it ends here. */
static INLINE const struct flow *reply_flow(struct packet *packet, enum family family, int *outcome)
{
	struct flow *flow;

	if (!snat_is_reply(&packet->tuple, family))
		return NULL;
	packet->tuple.direction = DIRECTION_REPLY;
	flow = flow_lookup(&packet->tuple);
	if (!flow) {
		packet->tuple.direction = DIRECTION_REQUEST;
		return NULL;
	}
	if (unlikely(packet->ttl <= 1)) {
		*outcome = OUTCOME_TTL_EXPIRED_ANSWERED;
		return NULL;
	}
	flow_seen(packet, flow, flow_now());
	*outcome = OUTCOME_REPLY_FORWARDED;
	return flow;
}

static INLINE int balance_ip(context *ctx, struct cursor *cursor, struct packet *packet, enum family family,
			     __u32 *device)
{
	const struct flow *flow;
	struct flow opened;
	int outcome;

	if (!family_enabled(family))
		return OUTCOME_FAMILY_DISABLED_PASSED;
	packet->family = family;
	outcome = family == FAMILY_IPV4 ? parse_ip4(cursor, packet) : parse_ip6(cursor, packet);
	if (outcome != UNDECIDED)
		return outcome;
	if (packet->tuple.protocol == (family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return echo_answer(ctx, packet);
	outcome = parse_transport(cursor, packet);
	if (outcome != UNDECIDED)
		return outcome;
	flow = reply_flow(packet, family, &outcome);
	if (!flow && outcome == UNDECIDED)
		flow = request_flow(packet, &opened, &outcome);
	return flow ? forward(ctx, packet, flow, family, outcome, device) : outcome;
}

/* The outcome of a frame; where it is forwarded, `*device` is where to. */
static INLINE int balance(context *ctx, __u32 *device)
{
	struct cursor cursor = { ctx_data(ctx), ctx_data_end(ctx) };
	struct packet packet = { .bytes = ctx_length(ctx) };
	__be16 protocol;
	int outcome;

	outcome = parse_ethernet(&cursor, &protocol);
	if (outcome != UNDECIDED)
		return outcome;
	if (protocol == bpf_htons(ETH_P_IP))
		outcome = balance_ip(ctx, &cursor, &packet, FAMILY_IPV4, device);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		outcome = balance_ip(ctx, &cursor, &packet, FAMILY_IPV6, device);
	else
		return OUTCOME_NOT_IP_PASSED;
	return icmp_error_due(outcome) ? icmp_answer(ctx, &packet, outcome) : outcome;
}
