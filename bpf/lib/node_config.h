/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Configuration and vocabulary of the programs on the nodes that backends are on. These run at tc alone. */
#pragma once

#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "../include/counter.h"
#include "../include/dsr.h"
#include "../include/packet.h"
#include "../maps/node.h"

const volatile struct node_config node_config SEC(".rodata.config");

/* Further than any header that is looked at: Ethernet, outer IPv6, UDP, Geneve with option, inner Ethernet, IPv6 with an
 * option, TCP.
 */
#define NODE_HEADERS 256

static INLINE void *node_data(const struct __sk_buff *skb)
{
	return (void *)(long)context_field(skb, data);
}

static INLINE void *node_data_end(const struct __sk_buff *skb)
{
	return (void *)(long)context_field(skb, data_end);
}

/* What is `offset` bytes into the frame, up to a bound that the verifier sees. */
static INLINE void *node_at(const struct __sk_buff *skb, __u32 offset)
{
	__u64 bounded = offset;

	opaque(bounded);
	return node_data(skb) + (bounded & 0x3fff);
}

/* Frames that the stack made have little or nothing in their linear part. */
static INLINE void node_prepare(struct __sk_buff *skb)
{
	__u32 wanted = minimum(context_field(skb, len), NODE_HEADERS);

	if (node_data(skb) + wanted > node_data_end(skb))
		bpf_skb_pull_data(skb, wanted);
}

static INLINE bool node_learns(void)
{
	return node_config.enable_opt || node_config.enable_geneve;
}

/* The family of a frame by its protocol; 0 where there is nothing to do for it. */
static INLINE __u32 node_family(__be16 protocol)
{
	if (node_config.enable_ipv4 && protocol == bpf_htons(ETH_P_IP))
		return FAMILY_IPV4;
	if (node_config.enable_ipv6 && protocol == bpf_htons(ETH_P_IPV6))
		return FAMILY_IPV6;
	return 0;
}

static INLINE void node_count(__u32 outcome, __u32 bytes)
{
	count(bpf_map_lookup_elem(&node_outcomes_v1, &outcome), bytes);
}

/* Other programs on the device have their turn. */
static INLINE int node_verdict(__u32 outcome)
{
	return 1ULL << outcome & NODE_OUTCOMES_PASS ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* Read a packet's headers: UNDECIDED, or a node outcome. */
static INLINE int node_parse(struct __sk_buff *skb, struct packet *packet, enum family family)
{
	struct cursor cursor = { node_data(skb) + ETH_HLEN, node_data_end(skb) };
	int outcome;

	__builtin_memset(packet, 0, sizeof(*packet));
	packet->bytes = context_field(skb, len);
	packet->family = family;
	outcome = family == FAMILY_IPV4 ? parse_ip4(&cursor, packet) : parse_ip6(&cursor, packet);
	if (outcome != UNDECIDED)
		return NODE_OUTCOME_MALFORMED_PASSED;
	if (packet->fragment == FRAGMENT_FOLLOWING)
		return NODE_OUTCOME_FRAGMENT_PASSED;
	if (packet->tuple.protocol != IPPROTO_TCP && packet->tuple.protocol != IPPROTO_UDP)
		return NODE_OUTCOME_PROTOCOL_PASSED;
	return parse_transport(&cursor, packet) == UNDECIDED ? UNDECIDED : NODE_OUTCOME_MALFORMED_PASSED;
}
