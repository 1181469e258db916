/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Reads a packet without looking whether it is long enough: the verifier refuses it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int count_xdp(struct xdp_md *ctx)
{
	return *(volatile __u8 *)(long)ctx->data;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
