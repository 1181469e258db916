/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* What goes out: replies of flows with direct server return get the service's address and port as source. */
#pragma once

#include "node_error.h"

static INLINE bool translate_transport(struct __sk_buff *skb, struct packet *packet, struct dsr_frontend *frontend)
{
	bool udp = packet->tuple.protocol == IPPROTO_UDP;
	__u32 at = packet->transport + (udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check));
	__u64 none = udp ? BPF_F_MARK_MANGLED_0 : 0;
	__s64 change = bpf_csum_diff((__be32 *)&packet->tuple.source, sizeof(union address),
				     (__be32 *)&frontend->address, sizeof(union address), 0);

	if (change < 0 || bpf_l4_csum_replace(skb, at, 0, change, none | BPF_F_PSEUDO_HDR))
		return false;
	if (bpf_l4_csum_replace(skb, at, packet->tuple.source_port, frontend->port, none | sizeof(frontend->port)))
		return false;
	return !bpf_skb_store_bytes(skb, packet->transport, &frontend->port, sizeof(frontend->port), 0);
}

static INLINE int egress_fragment(struct __sk_buff *skb, struct packet *packet, enum family family)
{
	struct dsr_frontend *frontend, copy;
	struct fragment_key key;

	fragment_key_of(packet, &key);
	frontend = bpf_map_lookup_elem(&dsr_fragments_v1, &key);
	if (!frontend)
		return NODE_OUTCOME_FRAGMENT_PASSED;
	copy = *frontend;
	return translate_network(skb, packet, &copy.address, family) ? NODE_OUTCOME_REPLY_FRAGMENT_TRANSLATED :
								      NODE_OUTCOME_CHANGE_FAILED_DROPPED;
}

static INLINE int egress_ip(struct __sk_buff *skb, enum family family)
{
	struct flow_key request;
	struct dsr_frontend frontend;
	struct fragment_key key;
	struct packet packet;
	int outcome = node_parse(skb, &packet, family);

	if (outcome == NODE_OUTCOME_FRAGMENT_PASSED)
		return egress_fragment(skb, &packet, family);
	if (outcome == NODE_OUTCOME_PROTOCOL_PASSED)
		return egress_error(skb, &packet, family);
	if (outcome != UNDECIDED)
		return outcome;
	tuple_reverse(&packet.tuple, &request);
	if (!recall(&request, packet.tcp_flags, &frontend))
		return NODE_OUTCOME_REPLY_PASSED;
	if (packet.fragment == FRAGMENT_FIRST) {
		fragment_key_of(&packet, &key);
		bpf_map_update_elem(&dsr_fragments_v1, &key, &frontend, BPF_ANY);
	}
	if (!translate_transport(skb, &packet, &frontend) ||
	    !translate_network(skb, &packet, &frontend.address, family))
		return NODE_OUTCOME_CHANGE_FAILED_DROPPED;
	return NODE_OUTCOME_REPLY_TRANSLATED;
}

static INLINE int node_egress(struct __sk_buff *skb)
{
	if (!node_learns())
		return NODE_OUTCOME_REPLY_PASSED;
	switch (node_family(skb->protocol)) {
	case FAMILY_IPV4:
		node_prepare(skb);
		return egress_ip(skb, FAMILY_IPV4);
	case FAMILY_IPV6:
		node_prepare(skb);
		return egress_ip(skb, FAMILY_IPV6);
	default:
		return NODE_OUTCOME_PROTOCOL_PASSED;
	}
}
