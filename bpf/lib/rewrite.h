/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Puts a flow's addresses and ports into a packet, and keeps its checksums right. */
#pragma once

#include "../include/checksum.h"
#include "../include/packet.h"

static INLINE __u32 ports_word(__be16 source, __be16 destination)
{
	return source | (__u32)destination << 16;
}

/* What the translation of addresses does to a sum over them; mapped prefixes are the same before and after. */
static INLINE __u64 address_change(const struct flow_key *before, const struct flow *after, enum family family)
{
	__u64 change = 0;

	for (int i = family == FAMILY_IPV4 ? 3 : 0; i < 4; i++) {
		change += checksum_change(before->source.words[i], after->new_source.words[i]);
		change += checksum_change(before->destination.words[i], after->new_destination.words[i]);
	}
	return change;
}

/* Rewrite, and take `hops` off the TTL: none where the stack forwards, which does that itself.
 *
 * False where the frame ends too early, which the parsers have ruled out but the verifier forgot.
 */
static INLINE bool rewrite(context *ctx, const struct packet *packet, const struct flow *flow, enum family family,
			   __u8 hops)
{
	void *end = ctx_data_end(ctx);
	void *network = ctx_data(ctx) + ETH_HLEN;
	struct udphdr *ports = ctx_data(ctx) + packet->transport;
	struct iphdr *ip4 = network;
	struct ipv6hdr *ip6 = network;
	bool udp = packet->tuple.protocol == IPPROTO_UDP;
	__sum16 *checksum = (void *)ports + (udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check));
	__u64 change = address_change(&packet->tuple, flow, family);
	__u8 ttl = packet->ttl - hops;

	if ((void *)(ports + 1) > end || (void *)(checksum + 1) > end)
		return false;
	if (family == FAMILY_IPV4) {
		if ((void *)(ip4 + 1) > end)
			return false;
		ip4->saddr = flow->new_source.words[3];
		ip4->daddr = flow->new_destination.words[3];
		ip4->ttl = ttl;
		ip4->check = checksum_update(
			ip4->check, change + checksum_change(bpf_htons(packet->ttl << 8), bpf_htons(ttl << 8)));
	} else {
		if ((void *)(ip6 + 1) > end)
			return false;
		__builtin_memcpy(&ip6->saddr, &flow->new_source, sizeof(ip6->saddr));
		__builtin_memcpy(&ip6->daddr, &flow->new_destination, sizeof(ip6->daddr));
		ip6->hop_limit = ttl;
	}
	ports->source = flow->new_source_port;
	ports->dest = flow->new_destination_port;
	/* UDP: 0 says that there is none, so a sum of 0 is sent as its other form (RFC 768). */
	if (udp && !*checksum)
		return true;
	change += checksum_change(ports_word(packet->tuple.source_port, packet->tuple.destination_port),
				  ports_word(flow->new_source_port, flow->new_destination_port));
	*checksum = checksum_update(*checksum, change);
	if (udp && !*checksum)
		*checksum = 0xffff;
	return true;
}
