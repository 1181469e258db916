/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Bob Jenkins' lookup3 as Linux has it (include/linux/jhash.h), in the two forms that Cilium hashes a packet with. */
#pragma once

#include <bpf/bpf_endian.h>

#include "compiler.h"

struct jhash {
	__u32 a, b, c;
};

/* Fields of the packet are read little-endian on every machine, so that all nodes agree. */
static INLINE __u32 jhash_word(__be32 field)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return field;
#else
	return __builtin_bswap32(field);
#endif
}

static INLINE __u32 jhash_rotate(__u32 word, __u32 bits)
{
	return word << bits | word >> (32 - bits);
}

static INLINE void jhash_mix(struct jhash *h)
{
	h->a -= h->c, h->a ^= jhash_rotate(h->c, 4), h->c += h->b;
	h->b -= h->a, h->b ^= jhash_rotate(h->a, 6), h->a += h->c;
	h->c -= h->b, h->c ^= jhash_rotate(h->b, 8), h->b += h->a;
	h->a -= h->c, h->a ^= jhash_rotate(h->c, 16), h->c += h->b;
	h->b -= h->a, h->b ^= jhash_rotate(h->a, 19), h->a += h->c;
	h->c -= h->b, h->c ^= jhash_rotate(h->b, 4), h->b += h->a;
}

static INLINE void jhash_final(struct jhash *h)
{
	h->c ^= h->b, h->c -= jhash_rotate(h->b, 14);
	h->a ^= h->c, h->a -= jhash_rotate(h->c, 11);
	h->b ^= h->a, h->b -= jhash_rotate(h->a, 25);
	h->c ^= h->b, h->c -= jhash_rotate(h->b, 16);
	h->a ^= h->c, h->a -= jhash_rotate(h->c, 4);
	h->b ^= h->a, h->b -= jhash_rotate(h->a, 14);
	h->c ^= h->b, h->c -= jhash_rotate(h->b, 24);
}

static INLINE __u32 jhash_3words(__u32 a, __u32 b, __u32 c, __u32 seed)
{
	__u32 initial = seed + 0xdeadbeef + (3 << 2);
	struct jhash h = { a + initial, b + initial, c + initial };

	jhash_final(&h);
	return h.c;
}
