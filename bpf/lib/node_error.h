/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* ICMP errors that the backend's own node sends about packets of flows with direct server return, as for a UDP port that
 * nobody listens on. They quote the packet as the load balancer translated it; the client knows the one it sent.
 */
#pragma once

#include "../include/icmp.h"
#include "node_translate.h"

static INLINE bool quotes_packet(const struct __sk_buff *skb, const struct packet *packet, enum family family)
{
	__u8 type;

	if (packet->fragment || packet->tuple.protocol != (family == FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) ||
	    bpf_skb_load_bytes(skb, packet->transport, &type, sizeof(type)))
		return false;
	return icmp_is_error(type, family);
}

/* Addresses and size of the quoted IP header, the option of direct server return included; 0 where it is none. */
static INLINE __u32 quoted_network(const struct __sk_buff *skb, __u32 at, struct flow_key *quoted, enum family family)
{
	struct ipv6hdr ip6;
	struct iphdr ip4;
	__u8 option[2];

	if (family == FAMILY_IPV4) {
		if (bpf_skb_load_bytes(skb, at, &ip4, sizeof(ip4)) || ip4.frag_off & bpf_htons(IP4_FRAGMENT_OFFSET))
			return 0;
		address_set4(&quoted->source, ip4.saddr);
		address_set4(&quoted->destination, ip4.daddr);
		quoted->protocol = ip4.protocol;
		return ip4.ihl * 4;
	}
	if (bpf_skb_load_bytes(skb, at, &ip6, sizeof(ip6)))
		return 0;
	address_set6(&quoted->source, ip6.saddr.in6_u.u6_addr32);
	address_set6(&quoted->destination, ip6.daddr.in6_u.u6_addr32);
	quoted->protocol = ip6.nexthdr;
	if (quoted->protocol != IPPROTO_DSTOPTS)
		return sizeof(ip6);
	if (bpf_skb_load_bytes(skb, at + sizeof(ip6), option, sizeof(option)))
		return 0;
	quoted->protocol = option[0];
	return sizeof(ip6) + (option[1] + 1) * 8;
}

/* The quoted packet's destination becomes the service. The error's checksum covers the quote; in IPv4 the quoted header's
 * own checksum makes up for the address. The quoted transport checksum stays: nobody can verify it, a quote being cut off.
 */
static INLINE bool translate_quote(struct __sk_buff *skb, const struct packet *packet, __u32 at, __u32 transport,
				   const struct flow_key *quoted, struct dsr_frontend *frontend, enum family family)
{
	__u32 sum = packet->transport + offsetof(struct icmp_header, checksum);
	__be32 before = quoted->destination.words[3], after = frontend->address.words[3];
	__s64 change;

	if (bpf_l4_csum_replace(skb, sum, quoted->destination_port, frontend->port, sizeof(frontend->port)) ||
	    bpf_skb_store_bytes(skb, transport + offsetof(struct udphdr, dest), &frontend->port,
				sizeof(frontend->port), 0))
		return false;
	if (family == FAMILY_IPV4)
		return !bpf_l3_csum_replace(skb, at + offsetof(struct iphdr, check), before, after, sizeof(after)) &&
		       !bpf_skb_store_bytes(skb, at + offsetof(struct iphdr, daddr), &after, sizeof(after), 0);
	change = bpf_csum_diff((__be32 *)&quoted->destination, sizeof(union address), (__be32 *)&frontend->address,
			       sizeof(union address), 0);
	return change >= 0 && !bpf_l4_csum_replace(skb, sum, 0, change, 0) &&
	       !bpf_skb_store_bytes(skb, at + offsetof(struct ipv6hdr, daddr), &frontend->address,
				    sizeof(union address), 0);
}

/* The error comes from the service where it came from the backend itself; ICMPv6's checksum covers that, too. */
static INLINE bool translate_sender(struct __sk_buff *skb, struct packet *packet, struct dsr_frontend *frontend,
				    enum family family)
{
	__s64 change;

	if (family == FAMILY_IPV6) {
		change = bpf_csum_diff((__be32 *)&packet->tuple.source, sizeof(union address),
				       (__be32 *)&frontend->address, sizeof(union address), 0);
		if (change < 0 || bpf_l4_csum_replace(skb, packet->transport + offsetof(struct icmp_header, checksum), 0, change,
						      BPF_F_PSEUDO_HDR))
			return false;
	}
	return translate_network(skb, packet, &frontend->address, family);
}

static INLINE int egress_error(struct __sk_buff *skb, struct packet *packet, enum family family)
{
	__u32 at = packet->transport + sizeof(struct icmp_header), header;
	struct dsr_frontend frontend;
	struct flow_key quoted = {};
	__be16 ports[2];

	if (!quotes_packet(skb, packet, family))
		return NODE_OUTCOME_PROTOCOL_PASSED;
	header = quoted_network(skb, at, &quoted, family);
	if (!header || (quoted.protocol != IPPROTO_TCP && quoted.protocol != IPPROTO_UDP) ||
	    bpf_skb_load_bytes(skb, at + header, ports, sizeof(ports)))
		return NODE_OUTCOME_PROTOCOL_PASSED;
	quoted.source_port = ports[0];
	quoted.destination_port = ports[1];
	/* An error is no sign of a connection, no more than a reset is. */
	if (!recall(&quoted, TCP_RST, &frontend))
		return NODE_OUTCOME_PROTOCOL_PASSED;
	if (!translate_quote(skb, packet, at, at + header, &quoted, &frontend, family) ||
	    (address_equal(&packet->tuple.source, &quoted.destination) &&
	     !translate_sender(skb, packet, &frontend, family)))
		return NODE_OUTCOME_CHANGE_FAILED_DROPPED;
	return NODE_OUTCOME_REPLY_ERROR_TRANSLATED;
}
