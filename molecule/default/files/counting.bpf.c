/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* A user's own programs, one a hook; VERSION tells two versions of the object apart. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifndef VERSION
#define VERSION 1
#endif

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VERSION);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __always_inline void count(void)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&seen, &key);

	if (value)
		__sync_fetch_and_add(value, VERSION);
}

SEC("xdp")
int count_xdp(struct xdp_md *ctx)
{
	count();
	return XDP_PASS;
}

SEC("tc")
int count_tc(struct __sk_buff *skb)
{
	count();
	return -1; /* TC_ACT_UNSPEC: what comes next decides */
}

SEC("cgroup_skb/egress")
int count_cgroup(struct __sk_buff *skb)
{
	count();
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
