/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The same frame again and again, of one flow or of many: what wrapper.bpf.c and wire.bpf.c give to programs. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INLINE __attribute__((always_inline)) inline
#define FRAME_SIZE 128
#define MIXED 1 /* enum order of wrapper.py: flows at random */

/* Written from user space before every sample; layout of wrapper.Restore. */
struct restore {
	__u64 packets;
	__u64 frame[FRAME_SIZE / 8];
	__u32 length;
	__u32 mask;     /* flows - 1, where their number is a power of two; all ones: never the same again */
	__u32 order;
	__u32 random;   /* state of the generator; not 0 */
	__u32 source;   /* offset of the last word of the source address */
	__u32 port;     /* offset of the source port */
	__u32 checksum; /* offset of IPv4's header checksum; 0: there is none */
} restore = {};

static INLINE __u32 flow_number(void)
{
	__u32 x = restore.random;

	if (restore.order != MIXED)
		return (__u32)restore.packets & restore.mask;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	restore.random = x;
	return x & restore.mask;
}

/* Bring an IPv4 header's checksum up to date with another source address (RFC 1624). */
static INLINE void update_checksum(__u16 *checksum, __u32 before, __u32 after)
{
	__u32 sum = (__u16)~*checksum;

	sum += (__u16)~before + (__u16)~(before >> 16) + (__u16)after + (after >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*checksum = (__u16)~sum;
}

/* Make the frame at `data`, which is as long as it is to be, that of the next flow; false where it is too short. */
static INLINE int restore_frame(void *data, void *end)
{
	__u32 checksum = restore.checksum & (FRAME_SIZE - 1);
	__u32 source = restore.source & (FRAME_SIZE - 1);
	__u32 port = restore.port & (FRAME_SIZE - 1);
	__be32 before, after;
	__u32 number;

#pragma unroll
	for (int i = 0; i < FRAME_SIZE / 8; i++) {
		if (data + 8 * i + 8 > end)
			break;
		((__u64 *)data)[i] = restore.frame[i];
	}
	if (!restore.mask)
		return 1;
	number = flow_number();
	if (data + source + 4 > end || data + port + 2 > end || data + checksum + 2 > end)
		return 0;
	/* 2^14 ports for each address. */
	before = *(__be32 *)(data + source);
	after = bpf_htonl(bpf_ntohl(before) + (number >> 14));
	*(__be32 *)(data + source) = after;
	*(__be16 *)(data + port) = bpf_htons(1024 + (number & 0x3fff));
	if (checksum)
		update_checksum(data + checksum, before, after);
	return 1;
}
