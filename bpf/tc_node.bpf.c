// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Direct server return on the nodes that backends are on: the backend gets its packets as they were sent to it, and
 * the client gets its replies from the service's address.
 */
#include "lib/node_egress.h"
#include "lib/node_ingress.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int tc_node_ingress(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;
	__u32 outcome = node_ingress(skb);

	node_count(outcome, bytes);
	return node_verdict(outcome);
}

SEC("tc")
int tc_node_egress(struct __sk_buff *skb)
{
	__u32 bytes = skb->len;
	__u32 outcome = node_egress(skb);

	node_count(outcome, bytes);
	return node_verdict(outcome);
}
