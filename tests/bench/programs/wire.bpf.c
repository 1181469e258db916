// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Both ends of a wire: what makes frames, and what counts and drops those that come back.
 *
 * The kernel keeps the frames of BPF_F_TEST_XDP_LIVE_FRAMES and does not restore what others wrote into them, so each
 * is written anew.
 */
#include "restore.h"

#define CACHE_LINE 64
#define TELL_EVERY 16 /* frames; a power of two */

char _license[] SEC("license") = "Dual BSD/GPL";

/* Layout of live.Wire. What the two ends write is not in the same cache lines: they may be on two CPUs. */
struct wire {
	__u64 counted __attribute__((aligned(CACHE_LINE)));
	__u64 bytes;
	__u64 arrived __attribute__((aligned(CACHE_LINE))); /* what the generator is told of `counted` now and then */
	__u64 sent __attribute__((aligned(CACHE_LINE)));
	__u64 limit;  /* of `sent`, until it looks at `arrived` again */
	__u64 window; /* frames that may be on their way */
} wire SEC(".data.wire") = {};

/* As a live frame, XDP_TX leaves by the device that it is said to have come by. */
SEC("xdp")
int generator(struct xdp_md *ctx)
{
	if (wire.sent >= wire.limit) {
		wire.limit = *(volatile __u64 *)&wire.arrived + wire.window;
		if (wire.sent >= wire.limit)
			return XDP_DROP;
	}
	if (!restore_frame((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return XDP_ABORTED;
	restore.packets++;
	wire.sent++;
	return XDP_TX;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	wire.counted++;
	wire.bytes += ctx->data_end - ctx->data;
	if (!(wire.counted & (TELL_EVERY - 1)))
		*(volatile __u64 *)&wire.arrived = wire.counted;
	return XDP_DROP;
}
