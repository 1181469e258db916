/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* VLANs at XDP, where frames still have their tags: those of VLANs that are served are taken off, so that everything
 * else meets untagged frames, and frames get the tags of the VLAN that they leave by. (At tc the kernel does both, and
 * the program is attached to the VLAN devices themselves.)
 */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"
#include "scratch.h"

#define VLAN_ID 0x0fff

/* What follows the MAC addresses of a frame with tags. */
struct vlan_header {
	struct vlan_tag tags[VLAN_TAGS];
	__be16 protocol;
};

/* Tags of scratch(), in bytes. */
static INLINE __u32 vlan_bytes(const struct scratch *s)
{
	return (!!s->tags[0].protocol + !!s->tags[1].protocol) * sizeof(struct vlan_tag);
}

/* Copy the frame's tags to scratch(): the protocol of what is behind them, 0 where there are more than are looked behind
 * or the frame ends.
 */
static INLINE __be16 vlan_parse(context *ctx, struct scratch *s)
{
	const struct vlan_header *header = ctx_data(ctx) + 2 * ETH_ALEN;
	__be16 protocol;

	if ((void *)(header + 1) > ctx_data_end(ctx))
		return 0;
	s->tags[0] = header->tags[0];
	protocol = header->tags[1].protocol;
	if (!is_vlan(protocol))
		return protocol;
	s->tags[1] = header->tags[1];
	return is_vlan(header->protocol) ? 0 : header->protocol;
}

/* The device that the load balancer serves frames with scratch()->tags for; 0 is none. */
static INLINE __u32 vlan_arrival(const context *ctx, const struct scratch *s)
{
	struct vlan key = { .device = ctx_device(ctx) };
	const __u32 *found;

	for (int i = 0; i < VLAN_TAGS; i++) {
		key.tags[i].protocol = s->tags[i].protocol;
		key.tags[i].control = s->tags[i].control & bpf_htons(VLAN_ID);
	}
	found = bpf_map_lookup_elem(&vlans_in_v1, &key);
	return found ? *found : 0;
}

/* Take the tags off a frame of a VLAN that is served: 0 and the tags in scratch(), else not 0, and none there. */
SLOW int vlan_take(context *ctx)
{
	struct scratch *s = scratch();
	__u8 macs[2 * ETH_ALEN];
	struct ethhdr *ethernet;
	__u32 device, bytes;
	__be16 protocol;

	if (!s)
		return -1;
	protocol = vlan_parse(ctx, s);
	device = protocol ? vlan_arrival(ctx, s) : 0;
	ethernet = ctx_data(ctx);
	if (!device || (void *)(ethernet + 1) > ctx_data_end(ctx))
		goto untouched;
	__builtin_memcpy(macs, ethernet, sizeof(macs));
	bytes = vlan_bytes(s);
	if (ctx_remove_front(ctx, bytes))
		goto untouched;
	ethernet = ctx_data(ctx);
	if ((void *)(ethernet + 1) > ctx_data_end(ctx))
		return -1;
	__builtin_memcpy(ethernet, macs, sizeof(macs));
	ethernet->h_proto = protocol;
	s->arrival = device;
	s->packet.bytes -= bytes;
	return 0;

untouched:
	__builtin_memset(s->tags, 0, sizeof(s->tags));
	return -1;
}

/* UNDECIDED and the protocol of a frame that has lost its tags, or VLAN_PASSED. */
static INLINE int vlan_untag(context *ctx, __be16 *protocol)
{
	const struct ethhdr *ethernet;

	if (vlan_take(ctx))
		return OUTCOME_VLAN_PASSED;
	ethernet = ctx_data(ctx);
	if ((void *)(ethernet + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	*protocol = ethernet->h_proto;
	return UNDECIDED;
}

/* Put scratch()->tags on the frame: `outcome`, or why not. */
SLOW int vlan_put(context *ctx, __u32 outcome)
{
	struct scratch *s = scratch();
	struct vlan_header *header;
	struct ethhdr *ethernet;
	struct ethhdr plain;
	void *end;

	ethernet = ctx_data(ctx);
	if (!s || (void *)(ethernet + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	plain = *ethernet;
	if (ctx_add_front(ctx, vlan_bytes(s)))
		return OUTCOME_NO_ROOM_DROPPED;
	ethernet = ctx_data(ctx);
	header = (void *)&ethernet->h_proto;
	end = ctx_data_end(ctx);
	if ((void *)(header + 1) > end)
		return OUTCOME_TRUNCATED_DROPPED;
	__builtin_memcpy(ethernet, &plain, 2 * ETH_ALEN);
	header->tags[0] = s->tags[0];
	if (s->tags[1].protocol) {
		header->tags[1] = s->tags[1];
		header->protocol = plain.h_proto;
	} else {
		header->tags[1].protocol = plain.h_proto;
	}
	return (int)outcome;
}
