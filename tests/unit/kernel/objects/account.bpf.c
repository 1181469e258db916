// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Counts frames that are on no socket's account (0), and those that are (1); small ones may be anybody's. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define SMALL 500

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} accounts SEC(".maps");

SEC("tc")
int account(struct __sk_buff *skb)
{
	__u32 key = bpf_get_socket_cookie(skb) != 0;
	__u64 *frames = bpf_map_lookup_elem(&accounts, &key);

	if (frames && skb->len > SMALL)
		__sync_fetch_and_add(frames, 1);
	return TC_ACT_UNSPEC;
}
