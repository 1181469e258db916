// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* The load balancer at tc, for devices whose drivers have no XDP: lib/balance.h behind another context. */
#include "include/ctx_skb.h"
#include "lib/balance.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int tc_lb(struct __sk_buff *ctx)
{
	return load_balancer(ctx);
}
