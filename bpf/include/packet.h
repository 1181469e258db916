/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* What the datapath knows of a packet, and the parsers that find it out.
 *
 * A parser checks a header, writes down what later steps need and moves the cursor behind it. It returns
 * UNDECIDED, or the outcome that ends the packet's way.
 */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "address.h"
#include "cursor.h"
#include "outcomes.h"

/* Returned by every step that does not end the packet's way; outcomes are not negative. */
#define UNDECIDED (-1)

/* Flags in byte 13 of the TCP header (RFC 9293, 3.1). */
enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

#define IP4_MORE_FRAGMENTS 0x2000
#define IP4_FRAGMENT_OFFSET 0x1fff
#define IP4_DONT_FRAGMENT 0x4000
#define IP6_MORE_FRAGMENTS 0x0001
#define IP6_FRAGMENT_OFFSET 0xfff8

/* IPv6 extension headers that are looked behind. */
#define IP6_EXTENSIONS 4

enum fragment_part {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_FOLLOWING = 2, /* has no transport header */
};

struct packet {
	struct flow_key tuple;
	__u32 transport;   /* offset of the transport header in the frame */
	__u32 bytes;	   /* of the frame as it came in */
	__u32 fragment_id; /* where `fragment` is set */
	__u16 length;	   /* of the IP packet */
	__u16 mtu;	   /* of the next hop less what is added, where the packet is too big for it */
	__u8 family;	   /* enum family */
	__u8 ttl;
	__u8 traffic_class; /* DSCP and ECN */
	__u8 tcp_flags;
	__u8 fragment;	   /* enum fragment_part */
	__u8 fragment_protocol;
	bool dont_fragment;
};

/* The protocol in a frame's header. */
static INLINE __be16 family_protocol(enum family family)
{
	return family == FAMILY_IPV4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
}

/* Bytes of the fixed IP header. */
static INLINE __u32 network_header(enum family family)
{
	return family == FAMILY_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

/* Turn a packet's tuple around: what its receiver would send, or had sent. */
static INLINE void tuple_reverse(const struct flow_key *tuple, struct flow_key *reversed)
{
	reversed->source = tuple->destination;
	reversed->destination = tuple->source;
	reversed->source_port = tuple->destination_port;
	reversed->destination_port = tuple->source_port;
	reversed->protocol = tuple->protocol;
	reversed->direction = DIRECTION_REQUEST;
	reversed->pad = 0;
}

/* What fragments of a datagram have in common. */
static INLINE void fragment_key_of(const struct packet *packet, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->source = packet->tuple.source;
	key->destination = packet->tuple.destination;
	key->id = packet->fragment_id;
	key->protocol = packet->fragment_protocol;
}

/* Does a tag follow. */
static INLINE bool is_vlan(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

static INLINE int parse_ethernet(struct cursor *cursor, __be16 *protocol)
{
	const struct ethhdr *ethernet = cursor_take(cursor, sizeof(*ethernet));

	if (!ethernet)
		return OUTCOME_TRUNCATED_DROPPED;
	if (ethernet->h_dest[0] & 1)
		return OUTCOME_GROUP_FRAME_PASSED;
	*protocol = ethernet->h_proto;
	if (is_vlan(*protocol))
		return OUTCOME_VLAN_PASSED;
	return UNDECIDED;
}

/* Look behind tags: the protocol of what they are on. */
static INLINE int parse_tags(struct cursor *cursor, __be16 *protocol)
{
	const struct vlan_tag *tag;

	for (int i = 0; i < VLAN_TAGS && is_vlan(*protocol); i++) {
		/* What stands here is the rest of a tag, and the next one's beginning. */
		tag = cursor_take(cursor, sizeof(*tag));
		if (!tag)
			return OUTCOME_TRUNCATED_DROPPED;
		*protocol = tag->control;
	}
	return UNDECIDED;
}

static INLINE int parse_ip4(struct cursor *cursor, struct packet *packet)
{
	const struct iphdr *ip = cursor->position;
	__u32 header;
	__u16 fragment;

	if (!cursor_has(cursor, sizeof(*ip)))
		return OUTCOME_TRUNCATED_DROPPED;
	header = ip->ihl * 4;
	packet->length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || packet->length < header)
		return OUTCOME_MALFORMED_IP_DROPPED;
	if (packet->length + ETH_HLEN > packet->bytes)
		return OUTCOME_TRUNCATED_DROPPED;
	fragment = bpf_ntohs(ip->frag_off);
	if (unlikely(fragment & (IP4_MORE_FRAGMENTS | IP4_FRAGMENT_OFFSET))) {
		packet->fragment = fragment & IP4_FRAGMENT_OFFSET ? FRAGMENT_FOLLOWING : FRAGMENT_FIRST;
		packet->fragment_id = ip->id;
		packet->fragment_protocol = ip->protocol;
	}
	address_set4(&packet->tuple.source, ip->saddr);
	address_set4(&packet->tuple.destination, ip->daddr);
	packet->tuple.protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->traffic_class = ip->tos;
	packet->dont_fragment = !!(fragment & IP4_DONT_FRAGMENT);
	packet->transport = ETH_HLEN + header;
	cursor->position += header;
	return UNDECIDED;
}

static INLINE bool is_extension_header(__u8 next_header)
{
	switch (next_header) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
	case 135: /* mobility */
	case 139: /* host identity */
	case 140: /* shim6 */
		return true;
	default:
		return false;
	}
}

struct fragment_header {
	__u8 next_header;
	__u8 reserved;
	__be16 offset; /* and flags */
	__be32 id;
};

/* Look behind one extension header (RFC 8200, 4). */
static INLINE int parse_extension(struct cursor *cursor, struct packet *packet)
{
	const struct fragment_header *fragment = cursor->position;
	const __u8 *header = cursor->position;
	__u32 size = 8;

	/* None is shorter, and all begin with what comes next. */
	if (!cursor_has(cursor, sizeof(*fragment)))
		return OUTCOME_TRUNCATED_DROPPED;
	if (packet->tuple.protocol == IPPROTO_FRAGMENT) {
		__u16 offset = bpf_ntohs(fragment->offset);

		packet->fragment_id = fragment->id;
		packet->fragment_protocol = fragment->next_header;
		if (offset & IP6_FRAGMENT_OFFSET)
			packet->fragment = FRAGMENT_FOLLOWING;
		else if (offset & IP6_MORE_FRAGMENTS)
			packet->fragment = FRAGMENT_FIRST;
	} else {
		size += header[1] * 8;
	}
	packet->tuple.protocol = header[0];
	packet->transport += size;
	cursor->position += size;
	return UNDECIDED;
}

static COLD int parse_extensions(struct cursor *cursor, struct packet *packet)
{
	for (int i = 0; i < IP6_EXTENSIONS; i++) {
		if (!is_extension_header(packet->tuple.protocol) || packet->fragment == FRAGMENT_FOLLOWING)
			return UNDECIDED;
		if (parse_extension(cursor, packet) != UNDECIDED)
			return OUTCOME_TRUNCATED_DROPPED;
		if (packet->transport - ETH_HLEN > packet->length)
			return OUTCOME_MALFORMED_IP_DROPPED;
	}
	return is_extension_header(packet->tuple.protocol) ? OUTCOME_EXTENSION_HEADER_PASSED : UNDECIDED;
}

static INLINE int parse_ip6(struct cursor *cursor, struct packet *packet)
{
	const struct ipv6hdr *ip = cursor_take(cursor, sizeof(*ip));
	__u32 payload;

	if (!ip)
		return OUTCOME_TRUNCATED_DROPPED;
	payload = bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || payload > 0xffff - sizeof(*ip))
		return OUTCOME_MALFORMED_IP_DROPPED;
	if (payload + sizeof(*ip) + ETH_HLEN > packet->bytes)
		return OUTCOME_TRUNCATED_DROPPED;
	address_set6(&packet->tuple.source, ip->saddr.in6_u.u6_addr32);
	address_set6(&packet->tuple.destination, ip->daddr.in6_u.u6_addr32);
	/* A mapped address on the wire would be taken for IPv4's (and no host may send it). */
	if (address_is_mapped4(&packet->tuple.source) || address_is_mapped4(&packet->tuple.destination))
		return OUTCOME_INVALID_ADDRESS_DROPPED;
	packet->tuple.protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->traffic_class = bpf_ntohs(*(__be16 *)ip) >> 4;
	packet->dont_fragment = true;
	packet->length = payload + sizeof(*ip);
	packet->transport = ETH_HLEN + sizeof(*ip);
	if (unlikely(is_extension_header(ip->nexthdr)))
		return parse_extensions(cursor, packet);
	return UNDECIDED;
}

/* The transport header of a packet that parse_ip* accepted: the frame holds packet->length bytes of it. A first fragment
 * has less than its transport header announces.
 */
static INLINE int parse_transport(struct cursor *cursor, struct packet *packet)
{
	__u32 room = packet->length + ETH_HLEN - packet->transport;
	const struct tcphdr *tcp = cursor->position;
	const struct udphdr *udp = cursor->position;

	switch (packet->tuple.protocol) {
	case IPPROTO_TCP:
		if (!cursor_has(cursor, sizeof(*tcp)) || room < sizeof(*tcp) || tcp->doff * 4 < (int)sizeof(*tcp) ||
		    (tcp->doff * 4 > (int)room && !packet->fragment))
			return OUTCOME_MALFORMED_TRANSPORT_DROPPED;
		packet->tcp_flags = ((const __u8 *)tcp)[13];
		break;
	case IPPROTO_UDP:
		if (!cursor_has(cursor, sizeof(*udp)) || room < sizeof(*udp) ||
		    bpf_ntohs(udp->len) < sizeof(*udp) || (bpf_ntohs(udp->len) > room && !packet->fragment))
			return OUTCOME_MALFORMED_TRANSPORT_DROPPED;
		packet->tcp_flags = 0;
		break;
	default:
		return OUTCOME_PROTOCOL_PASSED;
	}
	packet->tuple.source_port = udp->source;
	packet->tuple.destination_port = udp->dest;
	return UNDECIDED;
}
