/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* ICMP errors about flows of other load balancers. With SNAT only the one that has a flow can translate an error about a
 * reply, and where there are several routers may choose another. That one wraps the error as it is into IP and hands it
 * to the next in the ring (peers_v1), and so on, until it is where its flow is, or would be back at its origin.
 *
 * The outer source is the origin all the way. A ring is in the order of addresses and only errors from members are taken,
 * so no step leads past the origin, even where load balancers do not agree about who is in the ring.
 */
#pragma once

#include "icmp.h"
#include "nexthop.h"
#include "service.h"
#include "tunnel.h"

/* Load balancers that are tried where some cannot be reached. */
#define RELAY_TRIES 4

/* Of tunnels that carry the family that they are of. */
static INLINE __u8 relay_protocol(enum family family)
{
	return family == FAMILY_IPV4 ? IPPROTO_IPIP : IPPROTO_IPV6;
}

/* Does a packet carry what another load balancer hands on. */
static INLINE bool relay_arrives(const struct packet *packet)
{
	return packet->tuple.protocol == relay_protocol(packet->family) && !packet->fragment &&
	       address_equal(&packet->tuple.destination, snat_address(packet->family)) &&
	       bpf_map_lookup_elem(&peers_v1, &packet->tuple.source);
}

/* Parse the packet in a tunnel, as it will be without `outer` bytes in front of it. Is it an ICMP error for a VIP: nothing
 * else may come in this way.
 */
static INLINE bool relay_inner(context *ctx, const struct packet *packet, struct packet *inner, __u32 outer,
			       enum family family)
{
	struct cursor cursor = { ctx_at(ctx, packet->transport), ctx_data_end(ctx) };
	const struct icmp_header *icmp;

	__builtin_memset(inner, 0, sizeof(*inner));
	inner->family = family;
	inner->bytes = packet->length + ETH_HLEN - outer;
	if ((family == FAMILY_IPV4 ? parse_ip4(&cursor, inner) : parse_ip6(&cursor, inner)) != UNDECIDED)
		return false;
	icmp = ctx_at(ctx, outer + inner->transport);
	return inner->tuple.protocol == (family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) && !inner->fragment &&
	       (void *)(icmp + 1) <= ctx_data_end(ctx) && icmp_is_error(icmp->type, family) &&
	       address_is_vip(&inner->tuple.destination);
}

static INLINE int relay_unwrap(context *ctx, struct scratch *s, enum family family)
{
	__u32 outer = s->packet.transport - ETH_HLEN;
	struct ethhdr *ethernet = ctx_data(ctx);
	struct ethhdr kept;

	if ((void *)(ethernet + 1) > ctx_data_end(ctx) || !relay_inner(ctx, &s->packet, &s->quote, outer, family))
		return OUTCOME_PROTOCOL_PASSED;
	kept = *ethernet;
	if (ctx_remove_headers(ctx, outer))
		return OUTCOME_TRUNCATED_DROPPED;
	ctx_prepare(ctx);
	ethernet = ctx_data(ctx);
	if ((void *)(ethernet + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	*ethernet = kept;
	s->origin = s->packet.tuple.source;
	s->packet = s->quote;
	return UNDECIDED;
}

/* Unwrap what another load balancer hands on, and note the origin, which of all else is this node: UNDECIDED, or the
 * outcome.
 */
SLOW int relay_receive(context *ctx)
{
	struct scratch *s = scratch();

	if (!s || !config.peers)
		return OUTCOME_PROTOCOL_PASSED;
	if (s->packet.tuple.protocol == IPPROTO_ICMP || s->packet.tuple.protocol == IPPROTO_ICMPV6) {
		snat_address_copy(s->packet.family, &s->origin);
		return UNDECIDED;
	}
	return s->packet.family == FAMILY_IPV4 ? relay_unwrap(ctx, s, FAMILY_IPV4) :
						 relay_unwrap(ctx, s, FAMILY_IPV6);
}

/* Wrap the error, and send it to scratch()->peer. */
static INLINE int relay_send(context *ctx, struct scratch *s, const struct nexthop *hop, enum family family)
{
	if (ctx_insert_headers(ctx, network_header(family), family, INSERT_IP))
		return OUTCOME_NO_ROOM_DROPPED;
	if (!tunnel_header(ctx, &s->packet, &s->origin, 0, &s->peer, family, s->packet.length,
			   relay_protocol(family)))
		return OUTCOME_TRUNCATED_DROPPED;
	return send(ctx, s, hop, family, OUTCOME_ICMP_ERROR_RELAYED);
}

/* Send the error to the next load balancer of the ring that can be reached. */
static INLINE int relay_on(context *ctx, struct scratch *s, enum family family)
{
	const union address *next;
	const struct nexthop *hop;
	int missing = 0;

	snat_address_copy(family, &s->peer);
	for (int try = 0; try < RELAY_TRIES; try++) {
		next = bpf_map_lookup_elem(&peers_v1, &s->peer);
		if (!next || address_equal(next, &s->origin))
			break;
		/* A forged error costs every load balancer something: before any route is asked for. */
		if (!try && !icmp_error_allowed(&relay_budget_v1))
			return OUTCOME_ANSWER_LIMITED_DROPPED;
		s->peer = *next;
		missing = next_hop(ctx, s, &s->peer, family, route_index_of_client(ctx, s, &s->peer),
				   s->packet.length + network_header(family), &hop);
		if (!missing)
			return relay_send(ctx, s, hop, family);
	}
	return missing ? not_forwarded(&s->packet, missing) : OUTCOME_ICMP_PASSED;
}

/* Hand on an error about the reply to scratch()->request, of a flow that is not here. */
SLOW int relay_error(context *ctx)
{
	struct scratch *s = scratch();

	if (!s || !config.peers || !service_lookup(&s->request.tuple))
		return OUTCOME_ICMP_PASSED;
	return s->packet.family == FAMILY_IPV4 ? relay_on(ctx, s, FAMILY_IPV4) : relay_on(ctx, s, FAMILY_IPV6);
}
