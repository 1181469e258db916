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

#define IP4_FRAGMENT 0x3fff /* more fragments, or an offset */
#define IP4_DONT_FRAGMENT 0x4000

struct packet {
	struct flow_key tuple;
	__u32 transport;  /* offset of the transport header in the frame */
	__u32 bytes;	  /* of the frame as it came in */
	__be32 flow_info; /* IPv6: class and flow label, for policy routing; IPv4: TOS */
	__u16 length;	  /* of the IP packet */
	__u16 mtu;	  /* of the next hop, where the packet is too big for it */
	__u8 family;	  /* enum family */
	__u8 ttl;
	__u8 tcp_flags;
	bool dont_fragment;
};

static INLINE int parse_ethernet(struct cursor *cursor, __be16 *protocol)
{
	const struct ethhdr *ethernet = cursor_take(cursor, sizeof(*ethernet));

	if (!ethernet)
		return OUTCOME_TRUNCATED_DROPPED;
	if (ethernet->h_dest[0] & 1)
		return OUTCOME_GROUP_FRAME_PASSED;
	*protocol = ethernet->h_proto;
	if (*protocol == bpf_htons(ETH_P_8021Q) || *protocol == bpf_htons(ETH_P_8021AD))
		return OUTCOME_VLAN_PASSED;
	return UNDECIDED;
}

static INLINE int parse_ip4(struct cursor *cursor, struct packet *packet)
{
	const struct iphdr *ip = cursor->position;
	__u32 header;

	if (!cursor_has(cursor, sizeof(*ip)))
		return OUTCOME_TRUNCATED_DROPPED;
	header = ip->ihl * 4;
	packet->length = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || packet->length < header)
		return OUTCOME_MALFORMED_IP_DROPPED;
	if (!cursor_has(cursor, packet->length))
		return OUTCOME_TRUNCATED_DROPPED;
	if (ip->frag_off & bpf_htons(IP4_FRAGMENT))
		return OUTCOME_FRAGMENT_PASSED;
	address_set4(&packet->tuple.source, ip->saddr);
	address_set4(&packet->tuple.destination, ip->daddr);
	packet->tuple.protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->flow_info = ip->tos;
	packet->dont_fragment = !!(ip->frag_off & bpf_htons(IP4_DONT_FRAGMENT));
	packet->transport = ETH_HLEN + header;
	cursor->position += header;
	return UNDECIDED;
}

static INLINE bool is_extension_header(__u8 next_header)
{
	switch (next_header) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case 135: /* mobility */
	case 139: /* host identity */
	case 140: /* shim6 */
		return true;
	default:
		return false;
	}
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
	if (!cursor_has(cursor, payload))
		return OUTCOME_TRUNCATED_DROPPED;
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return OUTCOME_FRAGMENT_PASSED;
	if (is_extension_header(ip->nexthdr))
		return OUTCOME_EXTENSION_HEADER_PASSED;
	address_set6(&packet->tuple.source, ip->saddr.in6_u.u6_addr32);
	address_set6(&packet->tuple.destination, ip->daddr.in6_u.u6_addr32);
	/* A mapped address on the wire would be taken for IPv4's (and no host may send it). */
	if (address_is_mapped4(&packet->tuple.source) || address_is_mapped4(&packet->tuple.destination))
		return OUTCOME_INVALID_ADDRESS_DROPPED;
	packet->tuple.protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->flow_info = *(__be32 *)ip & bpf_htonl(0x0fffffff);
	packet->dont_fragment = true;
	packet->length = payload + sizeof(*ip);
	packet->transport = ETH_HLEN + sizeof(*ip);
	return UNDECIDED;
}

/* The transport header of a packet that parse_ip* accepted: the frame holds packet->length bytes of it. */
static INLINE int parse_transport(struct cursor *cursor, struct packet *packet)
{
	__u32 room = packet->length + ETH_HLEN - packet->transport;
	const struct tcphdr *tcp = cursor->position;
	const struct udphdr *udp = cursor->position;

	switch (packet->tuple.protocol) {
	case IPPROTO_TCP:
		if (!cursor_has(cursor, sizeof(*tcp)) || room < sizeof(*tcp) || tcp->doff * 4 < (int)sizeof(*tcp) ||
		    tcp->doff * 4 > (int)room)
			return OUTCOME_MALFORMED_TRANSPORT_DROPPED;
		packet->tcp_flags = ((const __u8 *)tcp)[13];
		break;
	case IPPROTO_UDP:
		if (!cursor_has(cursor, sizeof(*udp)) || room < sizeof(*udp) ||
		    bpf_ntohs(udp->len) < sizeof(*udp) || bpf_ntohs(udp->len) > room)
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
