// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Gives the measured program the same frame on every repeat of BPF_PROG_TEST_RUN.
 *
 * The kernel itself repeats on whatever the last run left: a rewritten or encapsulated frame, which takes another
 * way through the program. So this one is repeated instead; it restores the frame and jumps into the measured one.
 */
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAME_SIZE 128
#define MIXED 1 /* enum order of wrapper.py: flows at random */

char _license[] SEC("license") = "Dual BSD/GPL";

/* Written from user space before every sample; layout of wrapper.Restore. */
struct restore {
	__u64 packets;
	__u64 frame[FRAME_SIZE / 8];
	__u32 length;
	__u32 mask;   /* flows - 1, where their number is a power of two; all ones: never the same again */
	__u32 order;
	__u32 random; /* state of the generator; not 0 */
	__u32 source; /* offset of the last word of the source address */
	__u32 port;   /* offset of the source port */
} restore = {};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

static __u32 flow_number(void)
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

SEC("xdp")
int wrapper(struct xdp_md *ctx)
{
	int longer = (int)(ctx->data_end - ctx->data) - (int)restore.length;
	__u32 source = restore.source & (FRAME_SIZE - 1);
	__u32 port = restore.port & (FRAME_SIZE - 1);
	void *data, *end;
	__u32 number;

	if (longer && bpf_xdp_adjust_head(ctx, longer))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
#pragma unroll
	for (int i = 0; i < FRAME_SIZE / 8; i++) {
		if (data + 8 * i + 8 > end)
			break;
		((__u64 *)data)[i] = restore.frame[i];
	}
	if (restore.mask) {
		number = flow_number();
		if (data + source + 4 > end || data + port + 2 > end)
			return XDP_ABORTED;
		/* 2^14 ports for each address; IPv4's header checksum is left as it is, no measured program looks. */
		*(__be32 *)(data + source) = bpf_htonl(bpf_ntohl(*(__be32 *)(data + source)) + (number >> 14));
		*(__be16 *)(data + port) = bpf_htons(1024 + (number & 0x3fff));
	}
	/* A locked instruction also waits until the stores above are in the cache: loads of other widths than these
	 * stores would stall in the measured program, which no program that a driver calls has to pay for.
	 */
	__sync_fetch_and_add(&restore.packets, 1);
	bpf_tail_call(ctx, &measured, 0);
	return XDP_ABORTED;
}
