// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* The load balancer at XDP: translates between the hook and lib/balance.h. */
#include "include/ctx_xdp.h"
#include "lib/balance.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	__u32 bytes = ctx_length(ctx);
	__u32 device = 0;
	__u32 outcome = balance(ctx, &device);
	__u64 bit = 1ULL << outcome;

	count_outcome(outcome, bytes);
	if (bit & OUTCOMES_FORWARD)
		return ctx_send(device);
	if (bit & OUTCOMES_ANSWER)
		return ctx_send(ctx_device(ctx));
	return bit & OUTCOMES_PASS ? CTX_PASS : CTX_DROP;
}
