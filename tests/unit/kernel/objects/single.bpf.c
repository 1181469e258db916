/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* One program, and a map that asks to be pinned by its name. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} datapath_kernel_test SEC(".maps");

SEC("xdp")
int only(struct xdp_md *ctx)
{
	__u32 key = 0;

	bpf_map_lookup_elem(&datapath_kernel_test, &key);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
