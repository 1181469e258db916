/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The Internet checksum (RFC 1071), updated where a packet changes (RFC 1624, eqn. 3).
 *
 * Sums are kept in 64 bits and folded once: adding 32-bit words cannot overflow them.
 */
#pragma once

#include <linux/types.h>

#include "compiler.h"

static INLINE __u16 checksum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)((sum & 0xffff) + (sum >> 16));
}

/* What a 32-bit word's change does to the sum; a 16-bit word counts as itself, at the same parity. */
static INLINE __u64 checksum_change(__u32 before, __u32 after)
{
	return (__u64)(__u32)~before + after;
}

static INLINE __sum16 checksum_update(__sum16 checksum, __u64 change)
{
	return (__sum16)~checksum_fold((__u64)(__u16)~checksum + change);
}

/* Of the bytes from `from` to the frame's end, in words of 4; at most `limit` bytes. */
static INLINE __u64 checksum_sum(const void *from, const void *end, __u32 limit)
{
	const __u32 *word = from;
	__u64 sum = 0;

	for (__u32 i = 0; i < limit / sizeof(*word); i++, word++) {
		if ((const void *)(word + 1) > end)
			break;
		sum += *word;
	}
	return sum;
}
