/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Changes to packets that leave a backend's node. Helpers keep the checksums, which know of those that hardware is still to
 * complete.
 */
#pragma once

#include "node_record.h"

static INLINE bool translate_source4(struct __sk_buff *skb, __be32 before, __be32 after)
{
	return !bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), before, after, sizeof(after)) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &after, sizeof(after), 0);
}

static INLINE bool translate_network(struct __sk_buff *skb, const struct packet *packet, union address *source,
				     enum family family)
{
	if (family == FAMILY_IPV4)
		return translate_source4(skb, packet->tuple.source.words[3], source->words[3]);
	return !bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), source, sizeof(*source), 0);
}
