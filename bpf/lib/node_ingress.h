/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* What comes in: notes what packets with direct server return were addressed to, and unpacks tunnelled ones. Each is
 * unpacked once; the stack has the rest.
 */
#pragma once

#include "node_record.h"

/* Take the option's service from behind the fixed IP header; false where there is none. */
static INLINE bool option_read(struct __sk_buff *skb, enum family family, struct dsr_frontend *frontend)
{
	const struct iphdr *ip4 = node_data(skb) + ETH_HLEN;
	const struct ipv6hdr *ip6 = node_data(skb) + ETH_HLEN;
	const struct dsr_option4 *option4 = (const void *)(ip4 + 1);
	const struct dsr_option6 *option6 = (const void *)(ip6 + 1);
	void *end = node_data_end(skb);

	frontend->pad = 0;
	if (family == FAMILY_IPV4) {
		if ((void *)(option4 + 1) > end || ip4->ihl * 4 < (int)(sizeof(*ip4) + sizeof(*option4)) ||
		    option4->type != DSR_OPTION4_TYPE || option4->length != sizeof(*option4))
			return false;
		address_set4(&frontend->address, option4->address);
		frontend->port = option4->port;
		return true;
	}
	if ((void *)(option6 + 1) > end || ip6->nexthdr != IPPROTO_DSTOPTS ||
	    option6->header_length != sizeof(*option6) / 8 - 1 || option6->type != DSR_OPTION6_TYPE ||
	    option6->length != DSR_OPTION6_LENGTH || address_is_mapped4(&option6->address))
		return false;
	frontend->address = option6->address;
	frontend->port = option6->port;
	return true;
}

/* Remove `bytes` between the Ethernet header and a packet inside. The protocol, which decides who in the stack gets the
 * packet, only changes with the header's size, by 20 bytes.
 */
static INLINE bool unpack(struct __sk_buff *skb, __u32 bytes, enum family outer, enum family inner)
{
	const __s32 difference = sizeof(struct ipv6hdr) - sizeof(struct iphdr);
	__be16 protocol = family_protocol(inner);

	if (outer != inner) {
		if (bpf_skb_change_proto(skb, protocol, 0) ||
		    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol), 0))
			return false;
		bytes += inner == FAMILY_IPV6 ? difference : -difference;
	}
	return !bpf_skb_adjust_room(skb, -(__s32)bytes, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

static INLINE int ingress_ipip(struct __sk_buff *skb, const struct packet *packet, enum family outer)
{
	enum family inner = packet->tuple.protocol == IPPROTO_IPIP ? FAMILY_IPV4 : FAMILY_IPV6;

	if (!(inner == FAMILY_IPV4 ? node_config.enable_ipv4 : node_config.enable_ipv6))
		return NODE_OUTCOME_PROTOCOL_PASSED;
	return unpack(skb, packet->transport - ETH_HLEN, outer, inner) ? NODE_OUTCOME_IPIP_UNPACKED :
									 NODE_OUTCOME_CHANGE_FAILED_DROPPED;
}

/* The service in a Geneve option; false where it is another option. `bytes` of options there are. */
static INLINE bool geneve_read(struct __sk_buff *skb, const struct geneve_option *head, __u32 bytes,
			       struct dsr_frontend *frontend)
{
	const struct dsr_geneve4 *option4 = (const void *)head;
	const struct dsr_geneve6 *option6 = (const void *)head;
	void *end = node_data_end(skb);

	if ((void *)(option4 + 1) > end || head->option_class != bpf_htons(DSR_GENEVE_CLASS) ||
	    head->type != DSR_GENEVE_TYPE || sizeof(*head) + head->length * 4 != bytes)
		return false;
	frontend->pad = 0;
	if (bytes == sizeof(*option4)) {
		address_set4(&frontend->address, option4->address);
		frontend->port = option4->port;
		return true;
	}
	if (bytes != sizeof(*option6) || (void *)(option6 + 1) > end || address_is_mapped4(&option6->address))
		return false;
	frontend->address = option6->address;
	frontend->port = option6->port;
	return true;
}

/* Go on with what was in Geneve. */
static INLINE int ingress_inner(struct __sk_buff *skb, struct packet *packet, const struct dsr_frontend *frontend,
				enum family family)
{
	node_prepare(skb);
	if (node_parse(skb, packet, family) != UNDECIDED)
		return NODE_OUTCOME_GENEVE_UNPACKED;
	/* Addresses of another family are no service of this packet. */
	if (frontend && address_is_mapped4(&frontend->address) == (family == FAMILY_IPV4)) {
		record(packet, frontend);
		return NODE_OUTCOME_GENEVE_RECORDED;
	}
	forget_direct(packet);
	return NODE_OUTCOME_GENEVE_UNPACKED;
}

static INLINE int ingress_geneve(struct __sk_buff *skb, struct packet *packet, enum family outer)
{
	const struct geneve *geneve = node_at(skb, packet->transport + sizeof(struct udphdr));
	struct dsr_frontend frontend = {};
	const struct ethhdr *ethernet;
	__u32 options, family;
	bool told = false;

	if ((void *)(geneve + 1) > node_data_end(skb) || geneve->options >> 6 ||
	    geneve->protocol != bpf_htons(GENEVE_ETHERNET) || bpf_ntohl(geneve->vni) >> 8 != GENEVE_VNI_WORLD)
		return NODE_OUTCOME_GENEVE_FOREIGN_PASSED;
	options = (geneve->options & 0x3f) * 4;
	if (options)
		told = geneve_read(skb, (const void *)(geneve + 1), options, &frontend);
	/* What its sender insists on, and who does not understand it must not open (RFC 8926, 3.4). */
	if (geneve->flags & GENEVE_CRITICAL && !told)
		return NODE_OUTCOME_GENEVE_FOREIGN_PASSED;
	packet->transport += sizeof(struct udphdr) + sizeof(*geneve) + options;
	ethernet = node_at(skb, packet->transport);
	if ((void *)(ethernet + 1) > node_data_end(skb))
		return NODE_OUTCOME_GENEVE_FOREIGN_PASSED;
	family = node_family(ethernet->h_proto);
	if (!family)
		return NODE_OUTCOME_GENEVE_FOREIGN_PASSED;
	if (family == FAMILY_IPV4) {
		if (!unpack(skb, packet->transport, outer, FAMILY_IPV4))
			return NODE_OUTCOME_CHANGE_FAILED_DROPPED;
		return ingress_inner(skb, packet, told ? &frontend : NULL, FAMILY_IPV4);
	}
	if (!unpack(skb, packet->transport, outer, FAMILY_IPV6))
		return NODE_OUTCOME_CHANGE_FAILED_DROPPED;
	return ingress_inner(skb, packet, told ? &frontend : NULL, FAMILY_IPV6);
}

static INLINE int ingress_ip(struct __sk_buff *skb, enum family family)
{
	struct dsr_frontend frontend = {};
	struct packet packet;
	int outcome = node_parse(skb, &packet, family);

	if (node_config.enable_ipip && outcome == NODE_OUTCOME_PROTOCOL_PASSED && !packet.fragment &&
	    (packet.tuple.protocol == IPPROTO_IPIP || packet.tuple.protocol == IPPROTO_IPV6))
		return ingress_ipip(skb, &packet, family);
	if (outcome != UNDECIDED)
		return outcome;
	if (node_config.enable_geneve && packet.tuple.protocol == IPPROTO_UDP &&
	    packet.tuple.destination_port == bpf_htons(GENEVE_PORT))
		return packet.fragment ? NODE_OUTCOME_FRAGMENT_PASSED : ingress_geneve(skb, &packet, family);
	if (node_config.enable_opt && option_read(skb, family, &frontend)) {
		record(&packet, &frontend);
		return NODE_OUTCOME_OPTION_RECORDED;
	}
	return node_learns() ? forget_direct(&packet) : NODE_OUTCOME_REQUEST_PASSED;
}

static INLINE int node_ingress(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST)
		return NODE_OUTCOME_OTHER_HOST_PASSED;
	switch (node_family(skb->protocol)) {
	case FAMILY_IPV4:
		node_prepare(skb);
		return ingress_ip(skb, FAMILY_IPV4);
	case FAMILY_IPV6:
		node_prepare(skb);
		return ingress_ip(skb, FAMILY_IPV6);
	default:
		return NODE_OUTCOME_PROTOCOL_PASSED;
	}
}
