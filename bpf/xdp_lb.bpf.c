// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* The load balancer at XDP. */
#include "include/ctx_xdp.h"
#include "lib/balance.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	return load_balancer(ctx);
}
