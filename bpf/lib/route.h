/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Routes what endpoints send: a packet to a device that leads out of the node leaves by that straight away, as the
 * kernel's own routing table says. The stack would take it off its socket's account (ip_rcv), and nothing would slow
 * the sender down before its queue is full.
 *
 * What the stack would answer, drop or keep goes to the stack, and so does what a router has to look into. All other
 * packets of a flow are routed here, whatever state their neighbour is in: the host's netfilter must see all of them
 * or none.
 */
#pragma once

#include <linux/if_packet.h>

#include "../include/ctx_skb.h"
#include "../include/packet.h"
#include "../maps/bandwidth.h"
#include "fib.h"

/* The family of a frame that is for this node to route; 0 where it is not. */
static INLINE __u32 route_family(const struct __sk_buff *skb)
{
	__u32 protocol = (__u32)context_field(skb, protocol);

	/* Frames to others are a bridge's, and tagged ones a VLAN device's. */
	if (context_field(skb, pkt_type) != PACKET_HOST || ctx_untagged(skb))
		return 0;
	if (protocol == bpf_htons(ETH_P_IP))
		return FAMILY_IPV4;
	return protocol == bpf_htons(ETH_P_IPV6) ? FAMILY_IPV6 : 0;
}

/* IPv4 options and IPv6 extension headers are for routers, too; but a fragment header, which is not. */
static INLINE bool route_is_plain(const struct packet *packet, enum family family)
{
	__u32 behind = packet->transport - ETH_HLEN - network_header(family);

	return !behind || (packet->fragment && family == FAMILY_IPV6 && behind == sizeof(struct fragment_header));
}

/* Read the headers of a packet; false where it is the stack's to judge. Headers in pieces are, too: hardly anybody
 * sends them, and making them whole means to copy.
 */
static INLINE bool route_parse(const struct __sk_buff *skb, struct packet *packet, enum family family)
{
	struct cursor cursor = { ctx_at(skb, ETH_HLEN), ctx_data_end(skb) };

	__builtin_memset(packet, 0, sizeof(*packet));
	packet->bytes = ctx_length(skb);
	if ((family == FAMILY_IPV4 ? parse_ip4(&cursor, packet) : parse_ip6(&cursor, packet)) != UNDECIDED)
		return false;
	/* The stack cuts off what is behind the packet, and routes no groups, which the lookup would. */
	if (packet->length + ETH_HLEN != packet->bytes || packet->ttl <= 1 || !route_is_plain(packet, family) ||
	    !address_is_source(&packet->tuple.source, family) || !address_is_source(&packet->tuple.destination, family))
		return false;
	/* Rules and the choice of a path may go by ports; those of fragments are nobody's, so that all go one way. */
	return packet->fragment || parse_transport(&cursor, packet) == UNDECIDED ||
	       (packet->tuple.protocol != IPPROTO_TCP && packet->tuple.protocol != IPPROTO_UDP);
}

/* Length on the wire, of the largest piece where the packet is still to be cut. In tunnels the least that it can be:
 * only the kernel knows their headers.
 */
static INLINE __u32 route_length(const struct __sk_buff *skb, const struct packet *packet)
{
	__u32 payload = (__u32)context_field(skb, gso_size);

	if (!payload || packet->tuple.protocol == IPPROTO_TCP)
		return ctx_wire_length(skb, packet->length, packet->transport);
	return minimum(packet->length, packet->transport - ETH_HLEN + sizeof(struct udphdr) + payload);
}

static INLINE void route_take_hop(struct __sk_buff *skb, const struct packet *packet, enum family family)
{
	struct iphdr *ip4 = ctx_at(skb, ETH_HLEN);
	struct ipv6hdr *ip6 = ctx_at(skb, ETH_HLEN);

	if (family == FAMILY_IPV4 && (void *)(ip4 + 1) <= ctx_data_end(skb)) {
		ip4->ttl--;
		ip4->check = checksum_update(ip4->check, checksum_change(bpf_htons(packet->ttl << 8),
									 bpf_htons((packet->ttl - 1) << 8)));
	} else if (family == FAMILY_IPV6 && (void *)(ip6 + 1) <= ctx_data_end(skb)) {
		ip6->hop_limit--;
	}
}

/* The next hop of a packet out of the node; false where the stack has it. */
static INLINE bool route_find(struct __sk_buff *skb, const struct packet *packet, enum family family,
			      struct bpf_fib_lookup *fib)
{
	const __be32 *first = ctx_at(skb, ETH_HLEN);
	long missing;

	if ((void *)(first + 1) > ctx_data_end(skb))
		return false;
	fib_between(fib, family, &packet->tuple.source, &packet->tuple.destination);
	fib->tot_len = route_length(skb, packet);
	fib->ifindex = ctx_device(skb);
	fib->l4_protocol = packet->tuple.protocol;
	fib->sport = packet->tuple.source_port;
	fib->dport = packet->tuple.destination_port;
	if (family == FAMILY_IPV4)
		fib->tos = packet->traffic_class;
	else
		fib->flowinfo = *first & bpf_htonl(0x0fffffff);
	missing = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (missing && missing != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	return bpf_map_lookup_elem(&natives_v1, &fib->ifindex);
}

/* Send a packet on its way; false where it is as it was, for the stack. */
static INLINE bool route_packet(struct __sk_buff *skb, enum family family)
{
	struct bpf_fib_lookup fib = {};
	struct bpf_redir_neigh hop = {};
	struct packet packet;

	if (!route_parse(skb, &packet, family) || !route_find(skb, &packet, family, &fib))
		return false;
	route_take_hop(skb, &packet, family);
	/* An IPv4 route may have an IPv6 gateway. */
	hop.nh_family = fib.family;
	__builtin_memcpy(hop.ipv6_nh, fib.ipv6_dst, sizeof(hop.ipv6_nh));
	return bpf_redirect_neigh(fib.ifindex, &hop, sizeof(hop), 0) == TC_ACT_REDIRECT;
}

static INLINE bool route(struct __sk_buff *skb)
{
	__u32 family = route_family(skb);

	if (family == FAMILY_IPV4)
		return route_packet(skb, FAMILY_IPV4);
	return family == FAMILY_IPV6 && route_packet(skb, FAMILY_IPV6);
}
