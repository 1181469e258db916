// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* The bandwidth manager: rates of what endpoints send and receive. */
#include "lib/bandwidth.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int tc_bandwidth_mark(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;
	__u32 outcome = bandwidth_mark(skb);

	bandwidth_count(outcome, bytes);
	return bandwidth_verdict(outcome);
}

SEC("tc")
int tc_bandwidth_egress(struct __sk_buff *skb)
{
	__u32 bytes = skb->wire_len;
	__u32 outcome = bandwidth_egress(skb);

	bandwidth_count(outcome, bytes);
	return bandwidth_verdict(outcome);
}

SEC("tc")
int tc_bandwidth_ingress(struct __sk_buff *skb)
{
	__u32 bytes = skb->wire_len;
	__u32 outcome = bandwidth_ingress(skb);

	bandwidth_count(outcome, bytes);
	return bandwidth_verdict(outcome);
}
