/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* A stand-in for the load balancer: its maps' names and its program's name, a verdict from its configuration. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct configuration {
	__u32 verdict;
	__u32 outcome;		/* index of the counter that every packet is counted in */
	__u32 broken;		/* 1: the verifier refuses the program */
	__u32 table_size;
};

const volatile struct configuration config SEC(".rodata.config");

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct key {
	__u32 words[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, struct key);
	__type(value, __u64);
} services_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct key);
} backends_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} flows_tcp_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32[16381]);
	});
} luts_v1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct counter);
} outcomes_v1 SEC(".maps");

#ifdef AT_TC
#define CONTEXT struct __sk_buff
SEC("tc")
int tc_lb(CONTEXT *ctx)
#else
#define CONTEXT struct xdp_md
SEC("xdp")
int xdp_lb(CONTEXT *ctx)
#endif
{
	__u32 first = 0, outcome = config.outcome;
	struct counter *counter = bpf_map_lookup_elem(&outcomes_v1, &outcome);
	struct key service = {};
	void *table;

	if (config.broken)
		return *(int *)(long)ctx->data;
	if (counter) {
		counter->packets++;
		counter->bytes += ctx->data_end - ctx->data;
	}
	bpf_map_lookup_elem(&services_v1, &service);
	bpf_map_lookup_elem(&backends_v1, &first);
	bpf_map_lookup_elem(&flows_tcp_v1, &first);
	table = bpf_map_lookup_elem(&luts_v1, &first);
	if (table) {
		__u32 *slots = bpf_map_lookup_elem(table, &first);

		/* reached only while the table is as long as configured: the verifier knows both */
		if (slots && slots[config.table_size - 1] == 0xffffffff)
			return 0;
	}
	return config.verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
