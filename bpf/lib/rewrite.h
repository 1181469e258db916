/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Puts other addresses and ports into a packet, and keeps its checksums right. */
#pragma once

#include "../include/checksum.h"
#include "../include/packet.h"

/* What a packet gets. */
struct translation {
	const union address *source; /* NULL: source and its port stay as they are */
	const union address *destination;
	__be16 source_port;
	__be16 destination_port;
};

static INLINE __u32 ports_word(__be16 source, __be16 destination)
{
	return source | (__u32)destination << 16;
}

static INLINE __u64 address_change(const union address *before, const union address *after, enum family family)
{
	__u64 change = 0;

	/* Mapped prefixes are the same before and after. */
	for (int i = family == FAMILY_IPV4 ? 3 : 0; i < 4; i++)
		change += checksum_change(before->words[i], after->words[i]);
	return change;
}

/* Offset of the checksum in a TCP or UDP header. */
static INLINE __u32 transport_checksum(__u8 protocol)
{
	return protocol == IPPROTO_UDP ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check);
}

/* The IP header: addresses as `to` says, and `ttl` in place of packet->ttl. */
static INLINE bool rewrite_network(context *ctx, const struct packet *packet, const struct translation *to,
				   enum family family, __u8 ttl, __u64 change)
{
	void *end = ctx_data_end(ctx);
	struct iphdr *ip4 = ctx_data(ctx) + ETH_HLEN;
	struct ipv6hdr *ip6 = ctx_data(ctx) + ETH_HLEN;

	if (family == FAMILY_IPV4) {
		if ((void *)(ip4 + 1) > end)
			return false;
		if (to->source)
			ip4->saddr = to->source->words[3];
		ip4->daddr = to->destination->words[3];
		ip4->ttl = ttl;
		ip4->check = checksum_update(
			ip4->check, change + checksum_change(bpf_htons(packet->ttl << 8), bpf_htons(ttl << 8)));
		return true;
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	if (to->source)
		__builtin_memcpy(&ip6->saddr, to->source, sizeof(ip6->saddr));
	__builtin_memcpy(&ip6->daddr, to->destination, sizeof(ip6->daddr));
	ip6->hop_limit = ttl;
	return true;
}

/* Rewrite, and take `hops` off the TTL: none where the stack forwards, which does that itself.
 *
 * False where the frame ends too early, which the parsers have ruled out but the verifier forgot.
 */
static INLINE bool rewrite(context *ctx, const struct packet *packet, const struct translation *to,
			   enum family family, __u8 hops)
{
	struct udphdr *ports = ctx_at(ctx, packet->transport);
	__u64 change = address_change(&packet->tuple.destination, to->destination, family);
	__u32 before = packet->tuple.destination_port;
	__u32 after = to->destination_port;

	if (to->source) {
		change += address_change(&packet->tuple.source, to->source, family);
		before = ports_word(packet->tuple.source_port, packet->tuple.destination_port);
		after = ports_word(to->source_port, to->destination_port);
	}
	if (!rewrite_network(ctx, packet, to, family, packet->ttl - hops, change))
		return false;
	if (unlikely(packet->fragment == FRAGMENT_FOLLOWING))
		return true;
	if ((void *)(ports + 1) > ctx_data_end(ctx))
		return false;
	if (to->source)
		ports->source = to->source_port;
	ports->dest = to->destination_port;
	return ctx_update_checksum(ctx, packet->transport + transport_checksum(packet->tuple.protocol), change,
				   checksum_change(before, after), packet->tuple.protocol == IPPROTO_UDP);
}
