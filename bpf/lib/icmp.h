/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* ICMP that the load balancer speaks itself: echo replies of a VIP, and errors about a packet.
 *
 * Answers go back to the MAC address that the packet came from: the way that it took is known to work.
 */
#pragma once

#include "../include/checksum.h"
#include "../include/icmp.h"
#include "scratch.h"
#include "service.h"

#define ANSWER_TTL 64
#define ANSWER_TOS 0xc0 /* internetwork control (RFC 1812, 4.3.2.5) */

/* An error with its quote then fits in what every host can receive (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c). */
#define IP4_MINIMUM_MTU 576
#define IP6_MINIMUM_MTU 1280

/* ICMP errors a second and CPU: Linux's own limit for a host (net.ipv4.icmp_msgs_per_sec). */
#define ERRORS_PER_SECOND 1000

/* `to` may be `from`. */
static INLINE void swap_ethernet(struct ethhdr *to, const struct ethhdr *from)
{
	__u8 source[ETH_ALEN];

	__builtin_memcpy(source, from->h_source, ETH_ALEN);
	__builtin_memcpy(to->h_source, from->h_dest, ETH_ALEN);
	__builtin_memcpy(to->h_dest, source, ETH_ALEN);
	to->h_proto = from->h_proto;
}

/* Turn an echo request into its reply, in place; swapped addresses leave every checksum as it was. */
static INLINE int echo_answer(context *ctx, const struct packet *packet, enum family family)
{
	void *end = ctx_data_end(ctx);
	struct ethhdr *ethernet = ctx_data(ctx);
	struct icmp_header *icmp = ctx_at(ctx, packet->transport);
	struct ipv6hdr *ip6 = (void *)(ethernet + 1);
	struct iphdr *ip4 = (void *)(ethernet + 1);
	__u8 request = family == FAMILY_IPV4 ? ICMP_ECHO : ICMPV6_ECHO_REQUEST;
	__u8 reply = family == FAMILY_IPV4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;

	if ((void *)(icmp + 1) > end || packet->length + ETH_HLEN - packet->transport < sizeof(*icmp))
		return OUTCOME_MALFORMED_TRANSPORT_DROPPED;
	if (icmp->type != request || icmp->code || !address_is_vip(&packet->tuple.destination))
		return OUTCOME_ICMP_PASSED;
	if (!address_is_source(&packet->tuple.source, family))
		return OUTCOME_INVALID_ADDRESS_DROPPED;
	if (family == FAMILY_IPV4) {
		if ((void *)(ip4 + 1) > end)
			return OUTCOME_TRUNCATED_DROPPED;
		ip4->check = checksum_update(ip4->check, checksum_change(bpf_htons(ip4->ttl << 8),
									 bpf_htons(ANSWER_TTL << 8)));
		ip4->ttl = ANSWER_TTL;
		ip4->saddr = packet->tuple.destination.words[3];
		ip4->daddr = packet->tuple.source.words[3];
	} else {
		if ((void *)(ip6 + 1) > end)
			return OUTCOME_TRUNCATED_DROPPED;
		ip6->hop_limit = ANSWER_TTL;
		__builtin_memcpy(&ip6->saddr, &packet->tuple.destination, sizeof(ip6->saddr));
		__builtin_memcpy(&ip6->daddr, &packet->tuple.source, sizeof(ip6->daddr));
	}
	icmp->type = reply;
	icmp->checksum = checksum_update(icmp->checksum, checksum_change(bpf_htons(request << 8),
									 bpf_htons(reply << 8)));
	swap_ethernet(ethernet, ethernet);
	return OUTCOME_ECHO_ANSWERED;
}

/* Outcomes that stand for an ICMP error. */
static INLINE bool icmp_error_due(int outcome)
{
	return outcome == OUTCOME_TTL_EXPIRED_ANSWERED || outcome == OUTCOME_NO_BACKEND_ANSWERED ||
	       outcome == OUTCOME_TOO_BIG_ANSWERED;
}

static INLINE void icmp_describe(struct icmp_header *icmp, const struct packet *packet, int outcome)
{
	bool ip4 = packet->family == FAMILY_IPV4;

	icmp->checksum = 0;
	icmp->rest = 0;
	switch (outcome) {
	case OUTCOME_TTL_EXPIRED_ANSWERED:
		icmp->type = ip4 ? ICMP_TIME_EXCEEDED : ICMPV6_TIME_EXCEED;
		icmp->code = 0;
		break;
	case OUTCOME_NO_BACKEND_ANSWERED:
		icmp->type = ip4 ? ICMP_UNREACHABLE : ICMPV6_DEST_UNREACH;
		icmp->code = ip4 ? ICMP_UNREACHABLE_PORT : ICMPV6_PORT_UNREACH;
		break;
	case OUTCOME_TOO_BIG_ANSWERED:
		icmp->type = ip4 ? ICMP_UNREACHABLE : ICMPV6_PKT_TOOBIG;
		icmp->code = ip4 ? ICMP_UNREACHABLE_TOO_BIG : 0;
		/* Hosts discard what tells less (RFC 8201, 4): every link carries that, with a tunnel's headers too. */
		icmp->rest = bpf_htonl(!ip4 && packet->mtu < IP6_MINIMUM_MTU ? IP6_MINIMUM_MTU : packet->mtu);
		break;
	}
}

static INLINE void answer_header4(struct iphdr *ip, const struct packet *packet, __u32 payload)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = ANSWER_TOS;
	ip->tot_len = bpf_htons(sizeof(*ip) + payload);
	ip->frag_off = bpf_htons(IP4_DONT_FRAGMENT);
	ip->ttl = ANSWER_TTL;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = packet->tuple.destination.words[3];
	ip->daddr = packet->tuple.source.words[3];
	ip->check = (__sum16)~checksum_fold(checksum_sum(ip, ip + 1, sizeof(*ip)));
}

/* Returns the sum of the pseudo-header, which ICMPv6's checksum includes (RFC 8200, 8.1). */
static INLINE __u64 answer_header6(struct ipv6hdr *ip, const struct packet *packet, __u32 payload)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = ANSWER_TTL;
	__builtin_memcpy(&ip->saddr, &packet->tuple.destination, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &packet->tuple.source, sizeof(ip->daddr));
	return checksum_sum(&ip->saddr, &ip->daddr + 1, sizeof(ip->saddr) * 2) + bpf_htons(payload) +
	       bpf_htons(IPPROTO_ICMPV6);
}

/* May one more error leave, of those that `budgets` counts. */
static INLINE bool icmp_error_allowed(void *budgets)
{
	__u64 second = bpf_ktime_get_ns() / 1000000000;
	__u32 zero = 0;
	struct answer_budget *budget = bpf_map_lookup_elem(budgets, &zero);

	if (!budget)
		return false;
	if (budget->second != second) {
		budget->second = second;
		budget->sent = 0;
	}
	return budget->sent++ < ERRORS_PER_SECOND;
}

/* Replace an unchanged packet by the ICMP error that `outcome` stands for, from the address that it was sent to.
 *
 * Returns that outcome, or another where no error may or can be sent (RFC 1122, 3.2.2).
 */
static INLINE int icmp_answer_to(context *ctx, const struct packet *packet, enum family family, int outcome)
{
	__u32 header = network_header(family);
	__u32 limit = family == FAMILY_IPV4 ? IP4_MINIMUM_MTU : IP6_MINIMUM_MTU;
	__u32 head = header + sizeof(struct icmp_header);
	/* Whole words, which are easier to sum up; the ports are in every quote. */
	__u32 quote = minimum(packet->length, limit - head) & ~3U;
	struct icmp_header *icmp;
	struct ethhdr ethernet;
	void *data, *end;
	__u64 sum = 0;

	if (!address_is_source(&packet->tuple.source, family))
		return OUTCOME_INVALID_ADDRESS_DROPPED;
	if (!icmp_error_allowed(&answer_budget_v1))
		return OUTCOME_ANSWER_LIMITED_DROPPED;
	data = ctx_data(ctx);
	if (data + ETH_HLEN > ctx_data_end(ctx))
		return OUTCOME_ANSWER_FAILED_DROPPED;
	swap_ethernet(&ethernet, data);
	if (ctx_trim(ctx, ETH_HLEN + quote) || ctx_insert_headers(ctx, head, family, INSERT_PLAIN))
		return OUTCOME_ANSWER_FAILED_DROPPED;
	data = ctx_data(ctx);
	end = ctx_data_end(ctx);
	icmp = data + ETH_HLEN + header;
	if ((void *)(icmp + 1) > end)
		return OUTCOME_ANSWER_FAILED_DROPPED;
	__builtin_memcpy(data, &ethernet, sizeof(ethernet));
	if (family == FAMILY_IPV4)
		answer_header4(data + ETH_HLEN, packet, sizeof(*icmp) + quote);
	else
		sum = answer_header6(data + ETH_HLEN, packet, sizeof(*icmp) + quote);
	icmp_describe(icmp, packet, outcome);
	icmp->checksum = (__sum16)~checksum_fold(sum + checksum_sum(icmp, end, limit));
	return outcome;
}

SLOW int icmp_answer(context *ctx, int outcome)
{
	struct scratch *s = scratch();

	if (!s)
		return OUTCOME_ANSWER_FAILED_DROPPED;
	return s->packet.family == FAMILY_IPV4 ? icmp_answer_to(ctx, &s->packet, FAMILY_IPV4, outcome) :
						 icmp_answer_to(ctx, &s->packet, FAMILY_IPV6, outcome);
}
