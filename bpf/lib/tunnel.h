/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Outer IP headers of tunnels. */
#pragma once

#include "../include/checksum.h"
#include "../include/packet.h"

#define TUNNEL_TTL 64

static INLINE void tunnel_header4(struct iphdr *ip, const struct packet *packet, __be32 source, __be32 destination,
				  __u32 length, __u8 protocol)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	/* A router's congestion mark on the outer header must not be lost (RFC 6040, 4.1). */
	ip->tos = packet->traffic_class;
	ip->tot_len = bpf_htons(length);
	ip->frag_off = bpf_htons(IP4_DONT_FRAGMENT);
	ip->ttl = TUNNEL_TTL;
	ip->protocol = protocol;
	ip->saddr = source;
	ip->daddr = destination;
	ip->check = (__sum16)~checksum_fold(checksum_sum(ip, ip + 1, sizeof(*ip)));
}

/* `spread` are bits that the source gets in its last word. */
static INLINE void tunnel_header6(struct ipv6hdr *ip, const struct packet *packet,
				  const volatile union address *source, __be32 spread,
				  const union address *destination, __u32 payload, __u8 protocol)
{
	opaque(source);
	*(__be32 *)ip = bpf_htonl(6U << 28 | (__u32)packet->traffic_class << 20);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = protocol;
	ip->hop_limit = TUNNEL_TTL;
	for (int i = 0; i < 3; i++)
		ip->saddr.in6_u.u6_addr32[i] = source->words[i];
	ip->saddr.in6_u.u6_addr32[3] = source->words[3] | spread;
	__builtin_memcpy(&ip->daddr, destination, sizeof(ip->daddr));
}

/* The outer IP header of a tunnel over `payload` bytes, at the frame's start; returns what follows it, or NULL. */
static INLINE void *tunnel_header(context *ctx, const struct packet *packet, const volatile union address *source,
				  __be32 spread, const union address *destination, enum family outer, __u32 payload,
				  __u8 protocol)
{
	void *network = ctx_data(ctx) + ETH_HLEN;
	__u32 header = network_header(outer);

	if (network + header > ctx_data_end(ctx))
		return NULL;
	if (outer == FAMILY_IPV4)
		tunnel_header4(network, packet, source->words[3] | spread, destination->words[3], payload + header,
			       protocol);
	else
		tunnel_header6(network, packet, source, spread, destination, payload, protocol);
	return network + header;
}
