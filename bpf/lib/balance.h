/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The load balancer: what becomes of one frame. Every path ends in an outcome. */
#pragma once

#include "backend.h"
#include "capture.h"
#include "dsr.h"
#include "flow.h"
#include "fragment.h"
#include "icmp.h"
#include "icmp_error.h"
#include "nexthop.h"
#include "relay.h"
#include "rewrite.h"
#include "service.h"
#include "snat.h"
#include "stats.h"
#include "vlan.h"

/* Translate as `flow` says and send: `outcome`, or why not. */
static INLINE int forward(context *ctx, struct scratch *s, const struct flow *flow, enum family family, int outcome)
{
	struct packet *packet = &s->packet;
	bool reply = packet->tuple.direction == DIRECTION_REPLY;
	struct translation to = {
		.source = &flow->new_source,
		.destination = &flow->new_destination,
		.source_port = flow->new_source_port,
		.destination_port = flow->new_destination_port,
	};
	__u32 index = reply ? route_index_of_client(ctx, s, &flow->new_destination) :
			      route_index_of_backend(ctx, s, flow->backend_id);
	const struct nexthop *hop;
	int missing = next_hop(ctx, s, &flow->new_destination, family, index,
			       ctx_wire_length(ctx, packet->length, packet->transport), &hop);

	if (unlikely(missing)) {
		packet->mtu = s->route.mtu;
		outcome = not_forwarded(packet, missing);
		/* The stack can forward a reply. A request it would refuse: its source is an address of this node. */
		if (!reply || outcome == OUTCOME_NO_ROUTE_DROPPED || outcome == OUTCOME_TOO_BIG_ANSWERED)
			return outcome;
	}
	if (!rewrite(ctx, packet, &to, family, !missing))
		return OUTCOME_TRUNCATED_DROPPED;
	count_forwarded(flow->lut_id, flow->backend_id, packet->bytes);
	return missing ? OUTCOME_REPLY_PASSED : send(ctx, s, hop, family, outcome);
}

/* Only IP tunnels can cross families. */
static INLINE enum family outer_family(const struct backend *backend, enum family inner)
{
	return config.dsr_dispatch == DISPATCH_IPIP ? backend_family(backend) : inner;
}

/* Send to a backend that answers the client itself: `outcome`, or why not. */
static INLINE int forward_dsr(context *ctx, struct scratch *s, const struct service *service, enum family family)
{
	struct packet *packet = &s->packet;
	__u32 hash = slot_hash(&packet->tuple, family);
	bool tells = dsr_tells(packet);
	const struct backend *backend;
	const struct nexthop *hop;
	struct translation to = {};
	__u32 backend_id, overhead;
	enum family outer;
	int refused;

	if (unlikely(!address_is_source(&packet->tuple.source, family)))
		return OUTCOME_INVALID_ADDRESS_DROPPED;
	backend = choice_backend(ctx, service, hash, false, &backend_id);
	if (unlikely(!backend))
		return config.reject_without_backend ? OUTCOME_NO_BACKEND_ANSWERED : OUTCOME_NO_BACKEND_DROPPED;
	outer = outer_family(backend, family);
	overhead = dsr_overhead(family, outer, tells);
	refused = next_hop(ctx, s, &backend->address, outer, route_index_of_backend(ctx, s, backend_id),
			   ctx_wire_length(ctx, packet->length, packet->transport) + overhead, &hop);
	if (unlikely(refused)) {
		packet->mtu = s->route.mtu - overhead;
		return not_forwarded(packet, refused);
	}
	to.destination = &backend->address;
	to.destination_port = backend->port;
	if (config.dsr_dispatch == DISPATCH_IPIP) {
		to.destination = &packet->tuple.destination;
		if (!rewrite_network(ctx, packet, &to, family, packet->ttl - 1, 0))
			return OUTCOME_TRUNCATED_DROPPED;
	} else if (!rewrite(ctx, packet, &to, family, 1)) {
		return OUTCOME_TRUNCATED_DROPPED;
	}
	refused = dsr_dispatch(ctx, packet, backend, family, outer, hash, tells);
	if (refused != UNDECIDED)
		return refused;
	count_forwarded(service->lut_id, backend_id, packet->bytes);
	return send(ctx, s, hop, outer, packet_opens(packet) ? OUTCOME_REQUEST_NEW_FLOW : OUTCOME_REQUEST_FORWARDED);
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
static INLINE bool flow_continues(context *ctx, const struct packet *packet, const struct flow *flow, const struct service *service,
				  int *outcome)
{
	__u32 now = flow_now();
	__u32 opens = packet_opens(packet);
	__u32 ended = flow_expired(flow, now) | (opens & (flow->state / FLOW_CLOSING));

	*outcome = ended ? OUTCOME_REQUEST_NEW_FLOW : OUTCOME_REQUEST_RESELECTED;
	return likely(!(ended | flow_moves(flow, service, opens))) && flow_seen(ctx, packet, flow, now);
}

/* Begin the packet's flow: choose a backend and a source port, and enter both directions. UNDECIDED and scratch()->flow,
 * or why there is none.
 */
SLOW int flow_open(context *ctx)
{
	const struct backend *backend;
	const struct service *service;
	struct scratch *s = scratch();
	const struct packet *packet;
	struct flow *flow;
	__u32 hash;
	void *map;

	keep_argument(ctx);
	if (!s)
		return OUTCOME_NO_BACKEND_DROPPED;
	packet = &s->packet;
	flow = &s->flow;
	map = flow_map(packet->tuple.protocol);
	hash = slot_hash(&packet->tuple, packet->family);
	service = service_lookup(&packet->tuple);
	__builtin_memset(flow, 0, sizeof(*flow));
	if (!service)
		return OUTCOME_NO_BACKEND_DROPPED;
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

/* The flow of a packet from a client, or NULL with the packet's outcome. */
static INLINE const struct flow *request_flow(context *ctx, struct scratch *s, const struct service *service,
					      int *outcome)
{
	struct flow *flow = flow_lookup(&s->packet.tuple);
	int refused;

	*outcome = OUTCOME_REQUEST_NEW_FLOW;
	if (likely(flow && flow_continues(ctx, &s->packet, flow, service, outcome))) {
		*outcome = OUTCOME_REQUEST_FORWARDED;
		return flow;
	}
	refused = flow_open(ctx);
	if (refused == UNDECIDED)
		return &s->flow;
	*outcome = refused;
	return NULL;
}

/* The flow that a packet answers, or NULL: then it is no reply, or (`*outcome`) it ends here. */
static INLINE const struct flow *reply_flow(context *ctx, struct packet *packet, enum family family, int *outcome)
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
	flow_seen(ctx, packet, flow, flow_now());
	*outcome = OUTCOME_REPLY_FORWARDED;
	return flow;
}

/* A packet that no service can have: `passed`, but what is addressed to a VIP ends here. The stack would only send it
 * around in a circle. ICMP_PASSED is for balance_icmp.
 */
static COLD int not_for_services(const struct packet *packet, int passed)
{
	if (config.peers && passed == OUTCOME_PROTOCOL_PASSED && relay_arrives(packet))
		return OUTCOME_ICMP_PASSED;
	if (!address_is_vip(&packet->tuple.destination))
		return passed;
	if (passed == OUTCOME_FRAGMENT_PASSED)
		return OUTCOME_FRAGMENT_UNKNOWN_DROPPED;
	return config.wildcard_entries ? OUTCOME_UNKNOWN_PROTOCOL_DROPPED : passed;
}

static INLINE bool service_has_dsr(const struct service *service)
{
	return mode_in_use(MODE_DSR) && (!mode_in_use(MODE_SNAT) || service->flags & SERVICE_DSR);
}

static INLINE int balance_request(context *ctx, struct scratch *s, enum family family)
{
	const struct lookup *asked = service_find(ctx, &s->packet.tuple);
	const struct service *service;
	const struct flow *flow;
	int outcome;

	if (!asked || asked->found == FOUND_NOTHING)
		return OUTCOME_NO_SERVICE_PASSED;
	if (asked->found == FOUND_VIP)
		return config.wildcard_entries ? OUTCOME_UNKNOWN_PORT_DROPPED : OUTCOME_NO_SERVICE_PASSED;
	service = &asked->service;
	if (unlikely(s->packet.ttl <= 1))
		return OUTCOME_TTL_EXPIRED_ANSWERED;
	if (unlikely(s->packet.fragment == FRAGMENT_FIRST))
		fragment_remember(ctx);
	if (service_has_dsr(service))
		return forward_dsr(ctx, s, service, family);
	if (!mode_in_use(MODE_SNAT))
		return OUTCOME_NO_BACKEND_DROPPED;
	flow = request_flow(ctx, s, service, &outcome);
	return flow ? forward(ctx, s, flow, family, outcome) : outcome;
}

/* Send an error about a flow through this node to the end of it that sent the quoted packet. */
static INLINE int forward_flow_error(context *ctx, struct scratch *s, enum family family)
{
	struct flow_key *reversed = &s->request.tuple;
	const struct nexthop *hop;
	const struct flow *flow;
	__u32 index;
	int missing;

	if (snat_is_reply(reversed, family))
		reversed->direction = DIRECTION_REPLY;
	flow = bpf_map_lookup_elem(flow_map(reversed->protocol), reversed);
	if (!flow)
		return config.peers && reversed->direction == DIRECTION_REQUEST ? relay_error(ctx) :
										  OUTCOME_ICMP_PASSED;
	flow_mirror_key(reversed, flow, &s->quoted);
	index = reversed->direction == DIRECTION_REPLY ? route_index_of_client(ctx, s, &flow->new_destination) :
							 route_index_of_backend(ctx, s, flow->backend_id);
	missing = next_hop(ctx, s, &flow->new_destination, family, index, s->packet.length, &hop);
	if (missing)
		return not_forwarded(&s->packet, missing);
	if (!icmp_error_rewrite(ctx, &s->packet, &s->quote, &s->quoted, &flow->new_destination, family))
		return OUTCOME_TRUNCATED_DROPPED;
	return send(ctx, s, hop, family, OUTCOME_ICMP_ERROR_FORWARDED);
}

/* Send an error about a reply of a backend to that backend, which any load balancer can find. */
static INLINE int forward_dsr_error(context *ctx, struct scratch *s, const struct service *service,
				    enum family family)
{
	__u32 hash = slot_hash(&s->request.tuple, family);
	struct packet *packet = &s->packet;
	const struct backend *backend;
	const struct nexthop *hop;
	enum family outer;
	__u32 backend_id;
	int refused;

	backend = choice_backend(ctx, service, hash, true, &backend_id);
	if (!backend)
		return OUTCOME_ICMP_PASSED;
	outer = outer_family(backend, family);
	refused = next_hop(ctx, s, &backend->address, outer, route_index_of_backend(ctx, s, backend_id),
			   packet->length + dsr_overhead(family, outer, false), &hop);
	if (refused)
		return not_forwarded(packet, refused);
	if (config.dsr_dispatch == DISPATCH_IPIP) {
		struct translation to = { .destination = &packet->tuple.destination };

		if (!rewrite_network(ctx, packet, &to, family, packet->ttl - 1, 0))
			return OUTCOME_TRUNCATED_DROPPED;
	} else {
		s->quoted = s->quote.tuple;
		s->quoted.source = backend->address;
		s->quoted.source_port = backend->port;
		if (!icmp_error_rewrite(ctx, packet, &s->quote, &s->quoted, &backend->address, family))
			return OUTCOME_TRUNCATED_DROPPED;
	}
	refused = dsr_dispatch(ctx, packet, backend, family, outer, hash, false);
	return refused != UNDECIDED ? refused : send(ctx, s, hop, outer, OUTCOME_ICMP_ERROR_FORWARDED);
}

/* An ICMP message: an echo request is answered, an error about a flow goes to where it belongs. */
static INLINE int balance_icmp_of(context *ctx, struct scratch *s, enum family family)
{
	const struct icmp_header *icmp = ctx_at(ctx, s->packet.transport);
	const struct service *service;

	if (s->packet.fragment || (void *)(icmp + 1) > ctx_data_end(ctx) || !icmp_is_error(icmp->type, family))
		return echo_answer(ctx, &s->packet, family);
	if (quote_parse(ctx, &s->packet, &s->quote, family) != UNDECIDED || s->packet.ttl <= 1 ||
	    address_differ(&s->packet.tuple.destination, &s->quote.tuple.source))
		return OUTCOME_ICMP_PASSED;
	tuple_reverse(&s->quote.tuple, &s->request.tuple);
	s->request.tcp_flags = 0;
	/* No error about an error (RFC 1122, 3.2.2): what is too big is dropped. */
	s->packet.dont_fragment = false;
	if (mode_in_use(MODE_DSR)) {
		service = service_lookup(&s->request.tuple);
		if (service && service_has_dsr(service))
			return forward_dsr_error(ctx, s, service, family);
	}
	return mode_in_use(MODE_SNAT) ? forward_flow_error(ctx, s, family) : OUTCOME_ICMP_PASSED;
}

/* ICMP, or an error that another load balancer hands on. */
SLOW int balance_icmp(context *ctx)
{
	struct scratch *s = scratch();
	int outcome;

	if (!s)
		return OUTCOME_ICMP_PASSED;
	if (config.peers) {
		outcome = relay_receive(ctx);
		if (outcome != UNDECIDED)
			return outcome;
	}
	return s->packet.family == FAMILY_IPV4 ? balance_icmp_of(ctx, s, FAMILY_IPV4) :
						 balance_icmp_of(ctx, s, FAMILY_IPV6);
}

/* A packet of a family; ICMP_PASSED says that it is for balance_icmp, and nothing else yet. */
static INLINE int balance_ip(context *ctx, struct scratch *s, enum family family)
{
	struct cursor cursor = { ctx_data(ctx) + ETH_HLEN, ctx_data_end(ctx) };
	struct packet *packet = &s->packet;
	const struct flow *flow;
	int outcome;

	packet->family = family;
	outcome = family == FAMILY_IPV4 ? parse_ip4(&cursor, packet) : parse_ip6(&cursor, packet);
	if (outcome == OUTCOME_EXTENSION_HEADER_PASSED)
		return not_for_services(packet, outcome);
	if (outcome != UNDECIDED)
		return outcome;
	if (unlikely(packet->fragment == FRAGMENT_FOLLOWING))
		outcome = fragment_recall(ctx);
	else if (packet->tuple.protocol == (family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return OUTCOME_ICMP_PASSED;
	else
		outcome = parse_transport(&cursor, packet);
	if (outcome == OUTCOME_FRAGMENT_PASSED || outcome == OUTCOME_PROTOCOL_PASSED)
		return not_for_services(packet, outcome);
	if (outcome != UNDECIDED)
		return outcome;
	if (mode_in_use(MODE_SNAT)) {
		flow = reply_flow(ctx, packet, family, &outcome);
		if (flow && unlikely(packet->fragment == FRAGMENT_FIRST))
			fragment_remember(ctx);
		if (flow)
			return forward(ctx, s, flow, family, outcome);
		if (outcome != UNDECIDED)
			return outcome;
	}
	return balance_request(ctx, s, family);
}

/* Functions of their own: side by side in one they would need more stack than there is. */
static COLD int balance_ip4(context *ctx, struct scratch *s)
{
	return balance_ip(ctx, s, FAMILY_IPV4);
}

static COLD int balance_ip6(context *ctx, struct scratch *s)
{
	return balance_ip(ctx, s, FAMILY_IPV6);
}

/* The outcome of a frame without tags; where it is forwarded, scratch()->device is where to. */
static INLINE int balance_untagged(context *ctx, struct scratch *s, __be16 protocol)
{
	int outcome;

	if (protocol == bpf_htons(ETH_P_IP))
		outcome = family_enabled(FAMILY_IPV4) ? balance_ip4(ctx, s) : OUTCOME_FAMILY_DISABLED_PASSED;
	else if (protocol == bpf_htons(ETH_P_IPV6))
		outcome = family_enabled(FAMILY_IPV6) ? balance_ip6(ctx, s) : OUTCOME_FAMILY_DISABLED_PASSED;
	else
		return OUTCOME_NOT_IP_PASSED;
	if (unlikely(outcome == OUTCOME_ICMP_PASSED))
		outcome = balance_icmp(ctx);
	return icmp_error_due(outcome) ? icmp_answer(ctx, outcome) : outcome;
}

/* The outcome of a frame. Tags of VLANs that are served are off while it is worked on. */
static INLINE int balance(context *ctx, struct scratch *s)
{
	struct cursor cursor;
	__be16 protocol;
	int outcome;

	__builtin_memset(&s->packet, 0, sizeof(s->packet));
	ctx_prepare(ctx);
	s->packet.bytes = ctx_length(ctx);
	cursor.position = ctx_data(ctx);
	cursor.end = ctx_data_end(ctx);
	if (ctx_untagged(ctx))
		return OUTCOME_VLAN_PASSED;
	outcome = parse_ethernet(&cursor, &protocol);
	if (config.vlans) {
		s->arrival = ctx_device(ctx);
		__builtin_memset(s->tags, 0, sizeof(s->tags));
		if (unlikely(outcome == OUTCOME_VLAN_PASSED))
			outcome = vlan_untag(ctx, &protocol);
	}
	if (outcome != UNDECIDED)
		return outcome;
	outcome = balance_untagged(ctx, s, protocol);
	return config.vlans && s->tags[0].protocol ? vlan_put(ctx, outcome) : outcome;
}

/* A frame through the load balancer: what the hook is to do with it. */
static INLINE int load_balancer(context *ctx)
{
	struct scratch *s = scratch();
	__u32 bytes = ctx_length(ctx);
	int captured = 0;
	__u32 outcome;
	__u64 bit;

	if (!s)
		return CTX_PASS;
	if (capture.enabled)
		captured = capture_before(ctx);
	outcome = balance(ctx, s);
	if (captured)
		capture_after(ctx, outcome);
	bit = 1ULL << outcome;
	count_outcome(outcome, bytes);
	if (bit & OUTCOMES_FORWARD)
		return ctx_send(ctx, s->device);
	if (bit & OUTCOMES_ANSWER)
		return ctx_send(ctx, ctx_device(ctx));
	return bit & OUTCOMES_PASS ? CTX_PASS : CTX_DROP;
}
