/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Where a translated packet goes next, as the kernel's routes and neighbours say. */
#pragma once

#include "../include/packet.h"

/* Ask for the next hop of `packet` with the addresses that it is about to get.
 *
 * Returns BPF_FIB_LKUP_RET_*, or negative. BPF's lookup takes the receiving device for the packet's origin and so
 * wants forwarding switched on there.
 */
static INLINE long next_hop(context *ctx, const struct packet *packet, const struct flow *flow, enum family family,
			    struct bpf_fib_lookup *fib)
{
	fib->family = family;
	fib->l4_protocol = packet->tuple.protocol;
	fib->sport = flow->new_source_port;
	fib->dport = flow->new_destination_port;
	fib->tot_len = packet->length;
	fib->ifindex = ctx_device(ctx);
	if (family == FAMILY_IPV4) {
		fib->tos = (__u8)packet->flow_info;
		fib->ipv4_src = flow->new_source.words[3];
		fib->ipv4_dst = flow->new_destination.words[3];
	} else {
		fib->flowinfo = packet->flow_info;
		__builtin_memcpy(fib->ipv6_src, &flow->new_source, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &flow->new_destination, sizeof(fib->ipv6_dst));
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/* MTU that made the lookup fail. Kernels before 5.12 do not say it: then what every link can carry (RFC 8200, 5). */
static INLINE __u16 next_hop_mtu(const struct packet *packet, const struct bpf_fib_lookup *fib)
{
	return fib->mtu_result < packet->length ? fib->mtu_result : 1280;
}
