/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* ICMP errors about a flow: they quote a packet that was sent, and go to the end that sent it. Path-MTU discovery of
 * backends and clients hangs on them.
 */
#pragma once

#include "icmp.h"

/* The quoted packet's addresses and ports: UNDECIDED, or ICMP_PASSED where they are not there. */
static INLINE int quote_parse(context *ctx, const struct packet *packet, struct packet *quote, enum family family)
{
	struct cursor cursor = { ctx_at(ctx, packet->transport + sizeof(struct icmp_header)), ctx_data_end(ctx) };
	const struct ipv6hdr *ip6 = cursor.position;
	const struct iphdr *ip4 = cursor.position;
	const struct udphdr *ports;
	__u32 header = sizeof(*ip6);

	if (family == FAMILY_IPV4) {
		if (!cursor_has(&cursor, sizeof(*ip4)) || ip4->version != 4 || ip4->ihl * 4 < (int)sizeof(*ip4) ||
		    ip4->frag_off & bpf_htons(IP4_FRAGMENT_OFFSET))
			return OUTCOME_ICMP_PASSED;
		address_set4(&quote->tuple.source, ip4->saddr);
		address_set4(&quote->tuple.destination, ip4->daddr);
		quote->tuple.protocol = ip4->protocol;
		header = ip4->ihl * 4;
	} else {
		if (!cursor_has(&cursor, sizeof(*ip6)) || ip6->version != 6)
			return OUTCOME_ICMP_PASSED;
		address_set6(&quote->tuple.source, ip6->saddr.in6_u.u6_addr32);
		address_set6(&quote->tuple.destination, ip6->daddr.in6_u.u6_addr32);
		quote->tuple.protocol = ip6->nexthdr;
	}
	cursor.position += header;
	/* The ports are in every quote (RFC 792); all of a header need not be. */
	if ((quote->tuple.protocol != IPPROTO_TCP && quote->tuple.protocol != IPPROTO_UDP) ||
	    !cursor_has(&cursor, sizeof(__be32)))
		return OUTCOME_ICMP_PASSED;
	ports = cursor.position;
	quote->tuple.source_port = ports->source;
	quote->tuple.destination_port = ports->dest;
	quote->transport = packet->transport + sizeof(struct icmp_header) + header;
	/* What follows the packet in the frame is padding. */
	quote->length = packet->length + ETH_HLEN - quote->transport;
	if (packet->length + ETH_HLEN < quote->transport + sizeof(__be32))
		return OUTCOME_ICMP_PASSED;
	return UNDECIDED;
}

/* The quoted transport checksum, where it is quoted (RFC 5508, 4.2): what its update does to a sum over it. */
static INLINE __u64 quote_checksum(context *ctx, const struct packet *quote, __u64 change)
{
	__u32 offset = transport_checksum(quote->tuple.protocol);
	__sum16 *checksum = ctx_at(ctx, quote->transport + offset);
	__sum16 before, after;

	if ((void *)(checksum + 1) > ctx_data_end(ctx) || offset + sizeof(*checksum) > quote->length)
		return 0;
	before = *checksum;
	if (quote->tuple.protocol == IPPROTO_UDP && !before)
		return 0;
	after = checksum_update(before, change);
	if (quote->tuple.protocol == IPPROTO_UDP && !after)
		after = 0xffff;
	*checksum = after;
	return checksum_change(before, after);
}

/* Put other addresses and ports into the quote: the change of all that, for the checksum of the ICMP message, or
 * false.
 */
static INLINE bool quote_rewrite(context *ctx, const struct packet *packet, const struct packet *quote,
				 const struct flow_key *to, enum family family, __u64 *change)
{
	void *network = ctx_at(ctx, packet->transport + sizeof(struct icmp_header));
	struct udphdr *ports = ctx_at(ctx, quote->transport);
	struct ipv6hdr *ip6 = network;
	struct iphdr *ip4 = network;
	void *end = ctx_data_end(ctx);
	__u64 addresses;

	if ((void *)ports + sizeof(__be32) > end)
		return false;
	addresses = address_change(&quote->tuple.source, &to->source, family) +
		    address_change(&quote->tuple.destination, &to->destination, family);
	*change = addresses + checksum_change(ports_word(quote->tuple.source_port, quote->tuple.destination_port),
					      ports_word(to->source_port, to->destination_port));
	ports->source = to->source_port;
	ports->dest = to->destination_port;
	*change += quote_checksum(ctx, quote, *change);
	if (family == FAMILY_IPV4) {
		__sum16 before;

		if ((void *)(ip4 + 1) > end)
			return false;
		before = ip4->check;
		ip4->saddr = to->source.words[3];
		ip4->daddr = to->destination.words[3];
		ip4->check = checksum_update(before, addresses);
		*change += checksum_change(before, ip4->check);
		return true;
	}
	if ((void *)(ip6 + 1) > end)
		return false;
	__builtin_memcpy(&ip6->saddr, &to->source, sizeof(ip6->saddr));
	__builtin_memcpy(&ip6->daddr, &to->destination, sizeof(ip6->daddr));
	return true;
}

/* Translate an error: the quote becomes `quoted`, the error's own destination `destination`. */
static INLINE bool icmp_error_rewrite(context *ctx, const struct packet *packet, const struct packet *quote,
				      const struct flow_key *quoted, const union address *destination,
				      enum family family)
{
	struct translation to = { .destination = destination };
	__u64 outer = address_change(&packet->tuple.destination, destination, family);
	__u64 change = 0;

	if (!quote_rewrite(ctx, packet, quote, quoted, family, &change) ||
	    !rewrite_network(ctx, packet, &to, family, packet->ttl - 1, outer))
		return false;
	/* Only ICMPv6's checksum covers addresses (RFC 8200, 8.1). */
	return ctx_update_checksum(ctx, packet->transport + offsetof(struct icmp_header, checksum),
				   family == FAMILY_IPV6 ? outer : 0, change, false);
}
