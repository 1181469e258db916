/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* A stand-in for a backend's programs: their names, a map, a verdict from the configuration. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct configuration {
	__u32 verdict;
	__u32 broken;		/* 1: the verifier refuses the programs */
};

const volatile struct configuration config SEC(".rodata.config");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
#ifdef LARGE
	__uint(max_entries, 4096);
#else
	__uint(max_entries, 1024);
#endif
	__type(key, __u32);
	__type(value, __u64);
} replies_v1 SEC(".maps");

static int count(struct __sk_buff *skb, __u32 key)
{
	__u64 one = 1, *packets = bpf_map_lookup_elem(&replies_v1, &key);

	if (config.broken)
		return *(int *)(long)skb->data;
	if (packets)
		__sync_fetch_and_add(packets, 1);
	else
		bpf_map_update_elem(&replies_v1, &key, &one, BPF_ANY);
	return config.verdict;
}

SEC("tc")
int tc_node_ingress(struct __sk_buff *skb)
{
	return count(skb, 0);
}

SEC("tc")
int tc_node_egress(struct __sk_buff *skb)
{
	return count(skb, 1);
}

char _license[] SEC("license") = "Dual BSD/GPL";
