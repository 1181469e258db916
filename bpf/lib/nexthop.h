/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Where a packet goes next, as the kernel's routes and neighbours say.
 *
 * Asking costs several times what everything else does, so every CPU remembers the answers for a fraction of a second
 * (config.nexthop_age). Routes and neighbours stay the kernel's own, and are followed without anyone's help.
 */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"
#include "config.h"
#include "fib.h"
#include "scratch.h"

/* Places of answers: two devices that receive in turn must not drive out each other's. */
static INLINE __u32 route_index(__u32 number, __u32 device)
{
	return (number + device * 61) % NEXTHOPS_HALF;
}

/* The device that the packet came in by. */
static INLINE __u32 arrival(const context *ctx, const struct scratch *s)
{
	return config.vlans ? s->arrival : ctx_device(ctx);
}

static INLINE __u32 route_index_of_backend(const context *ctx, const struct scratch *s, __u32 backend_id)
{
	return route_index(backend_id, arrival(ctx, s));
}

static INLINE __u32 route_index_of_client(const context *ctx, const struct scratch *s, const union address *client)
{
	/* Fibonacci hashing of a sum: the upper bits are good. */
	__u32 sum = client->words[0] + client->words[1] * 3 + client->words[3];

	return NEXTHOPS_HALF + route_index(sum * 2654435769U >> 20, arrival(ctx, s));
}

/* The device that frames for the device `index` leave by, and the tags that they get. */
static INLINE void route_leave(struct nexthop *hop, __u32 index)
{
	const struct vlan *vlan = config.vlans ? bpf_map_lookup_elem(&vlans_out_v1, &index) : NULL;

	hop->device = vlan ? vlan->device : index;
	if (vlan)
		__builtin_memcpy(hop->tags, vlan->tags, sizeof(hop->tags));
	else
		__builtin_memset(hop->tags, 0, sizeof(hop->tags));
}

/* Ask the kernel for scratch()->route and remember the answer: 0, else BPF_FIB_LKUP_RET_* or negative.
 *
 * All packets of a CPU to one destination take the same way, so this node's own address is asked for, and no ports.
 * BPF's lookup takes the receiving device for the packet's origin and so wants forwarding switched on there.
 */
SLOW int route_ask(context *ctx)
{
	struct bpf_fib_lookup fib = {};
	const volatile union address *source;
	struct scratch *s = scratch();
	struct nexthop *hop;
	long missing;

	if (!s)
		return -1;
	hop = bpf_map_lookup_elem(&nexthops_v1, &s->route.index);
	if (!hop)
		return -1;
	fib.tot_len = s->route.length;
	fib.ifindex = arrival(ctx, s);
	source = snat_address(s->route.family);
	opaque(source);
	fib_between(&fib, s->route.family, source, &s->route.destination);
	missing = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	if (missing) {
		/* Kernels before 5.12 do not say it: then what every link can carry (RFC 8200, 5). */
		s->route.mtu = fib.mtu_result < s->route.length ? fib.mtu_result : 1280;
		return (int)missing;
	}
	hop->destination = s->route.destination;
	hop->received_on = arrival(ctx, s);
	route_leave(hop, fib.ifindex);
	hop->asked = (__u32)bpf_jiffies64();
	__builtin_memcpy(hop->macs, fib.dmac, ETH_ALEN);
	__builtin_memcpy(hop->macs + ETH_ALEN, fib.smac, ETH_ALEN);
	/* The same kernels leave the length of this packet there: longer ones ask again. */
	hop->mtu = fib.mtu_result;
	return 0;
}

/* The next hop towards `destination` for a packet of `length` bytes: 0 and `*hop`, else BPF_FIB_LKUP_RET_* or negative,
 * and in scratch()->route.mtu what would fit.
 */
static INLINE int next_hop(context *ctx, struct scratch *s, const union address *destination, enum family family,
			   __u32 index, __u32 length, const struct nexthop **hop)
{
	struct nexthop *known = bpf_map_lookup_elem(&nexthops_v1, &index);

	if (!known)
		return -1;
	*hop = known;
	if (likely((__u32)bpf_jiffies64() - known->asked < config.nexthop_age && length <= known->mtu &&
		   known->received_on == arrival(ctx, s) && address_equal(&known->destination, destination)))
		return 0;
	s->route.destination = *destination;
	s->route.index = index;
	s->route.length = length;
	s->route.mtu = 0;
	s->route.family = family;
	return route_ask(ctx);
}

/* What becomes of a packet whose next hop the lookup did not find: `why` is BPF_FIB_LKUP_RET_*. */
static INLINE int not_forwarded(const struct packet *packet, long why)
{
	switch (why) {
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return OUTCOME_NO_ROUTE_DROPPED;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return packet->dont_fragment ? OUTCOME_TOO_BIG_ANSWERED : OUTCOME_TOO_BIG_DROPPED;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return OUTCOME_NO_NEIGHBOUR_DROPPED;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return OUTCOME_FORWARDING_DISABLED_DROPPED;
	default:
		return OUTCOME_UNSUPPORTED_ROUTE_DROPPED;
	}
}

/* Address a frame to its next hop: `outcome`, or why not. */
static INLINE int send(context *ctx, struct scratch *s, const struct nexthop *hop, enum family family, int outcome)
{
	struct ethhdr *ethernet = ctx_data(ctx);

	if ((void *)(ethernet + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	__builtin_memcpy(ethernet, hop->macs, sizeof(hop->macs));
	ethernet->h_proto = family_protocol(family);
	s->device = hop->device;
	if (config.vlans)
		__builtin_memcpy(s->tags, hop->tags, sizeof(s->tags));
	return outcome;
}
