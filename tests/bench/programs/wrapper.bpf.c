// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Gives the measured program the same frame on every repeat of BPF_PROG_TEST_RUN.
 *
 * The kernel itself repeats on whatever the last run left: a rewritten or encapsulated frame, which takes another
 * way through the program. So this one is repeated instead; it restores the frame and jumps into the measured one.
 */
#include "restore.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

SEC("xdp")
int wrapper(struct xdp_md *ctx)
{
	int longer = (int)(ctx->data_end - ctx->data) - (int)restore.length;

	if (longer && bpf_xdp_adjust_head(ctx, longer))
		return XDP_ABORTED;
	if (!restore_frame((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		return XDP_ABORTED;
	/* A locked instruction also waits until the stores above are in the cache: loads of other widths than these
	 * stores would stall in the measured program, which no program that a driver calls has to pay for.
	 */
	__sync_fetch_and_add(&restore.packets, 1);
	bpf_tail_call(ctx, &measured, 0);
	return XDP_ABORTED;
}
