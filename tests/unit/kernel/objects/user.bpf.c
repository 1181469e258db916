/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Programs as a user might bring them, one or more for every hook. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 setting = 7;

SEC("xdp")
int pass_everything_with_a_long_name(struct xdp_md *ctx)
{
	return setting == 7 ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int drop_everything(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("xdp")
int out_of_bounds(struct xdp_md *ctx)
{
	return *(int *)(long)ctx->data;
}

SEC("tc")
int tc_pass(struct __sk_buff *skb)
{
	return TC_ACT_OK;
}

SEC("tc")
int tc_drop(struct __sk_buff *skb)
{
	return TC_ACT_SHOT;
}

SEC("cgroup_skb/egress")
int cgroup_pass(struct __sk_buff *skb)
{
	return 1;
}

SEC("cgroup_skb/egress")
int cgroup_drop(struct __sk_buff *skb)
{
	return 0;
}

SEC("cgroup/skb")
int cgroup_any(struct __sk_buff *skb)
{
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
