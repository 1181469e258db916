// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* The bandwidth manager's functions by a clock that the test sets, with what a run's context does not carry:
 * queue_mapping goes in and comes out as mark.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} test_clock SEC(".maps");

static __attribute__((always_inline)) inline __u64 test_now(void)
{
	__u32 zero = 0;
	__u64 *now = bpf_map_lookup_elem(&test_clock, &zero);

	return now ? *now : 0;
}

#define bpf_ktime_get_ns test_now
#include "../../../bpf/lib/bandwidth.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define TEST(name)                                                                                                     \
	SEC("tc") int test_##name(struct __sk_buff *skb)                                                               \
	{                                                                                                              \
		__u32 bytes = skb->wire_len, outcome;                                                                  \
                                                                                                                       \
		skb->queue_mapping = skb->mark;                                                                        \
		outcome = bandwidth_##name(skb);                                                                       \
		bandwidth_count(outcome, bytes);                                                                       \
		skb->mark = skb->queue_mapping;                                                                        \
		return bandwidth_verdict(outcome);                                                                     \
	}

TEST(mark)
TEST(egress)
TEST(ingress)
