/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Passes every frame.
 *
 * A veth wakes its peer for frames of XDP_TX only where the peer has a program of its own (veth_xdp_flush() looks for
 * one; NAPI by GRO does not count): without, they wait in the ring for somebody else's frame, and once the ring is full
 * it stays so. Real devices have no such need.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
