/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Source NAT: a flow's own source port on this node's address, so that replies come back here. */
#pragma once

#include "flow.h"

/* Ports tried before giving up: with half of the range taken towards one backend all fail once in 2^32 flows. */
#define SNAT_TRIES 32

static INLINE bool snat_is_reply(const struct flow_key *tuple, enum family family)
{
	__u16 port = bpf_ntohs(tuple->destination_port);

	return port >= config.snat_port_min && port <= config.snat_port_max &&
	       address_equal(&tuple->destination, snat_address(family));
}

/* May the entry of `key` become `reply`. */
static INLINE bool snat_available(void *map, const struct flow_key *key, const struct flow *reply)
{
	const struct flow *held = bpf_map_lookup_elem(map, key);

	return !held || flow_same(held, reply) || flow_expired(held, reply->last_seen);
}

/* Search a port: it comes to be in `key`. The client's is kept where it is in the range and free, else `hash` spreads
 * the tries over the range. False where none was free.
 */
static INLINE bool snat_search(void *map, struct flow_key *key, const struct flow *reply, __u32 hash)
{
	__u32 range = config.snat_port_max - config.snat_port_min + 1;
	__u16 port = bpf_ntohs(reply->new_destination_port);

	key->destination_port = reply->new_destination_port;
	if (port >= config.snat_port_min && port <= config.snat_port_max && snat_available(map, key, reply))
		return true;
	for (int try = 1; try < SNAT_TRIES; try++) {
		key->destination_port = bpf_htons(config.snat_port_min + (__u16)((__u64)hash * range >> 32));
		if (snat_available(map, key, reply))
			return true;
		/* A linear congruential generator, whose upper bits are good. */
		hash = hash * 1664525 + 1013904223;
	}
	return false;
}

/* Fill in the source of `flow`, whose destination is known, and enter the reply's direction.
 *
 * False where no port was free, or where this node has no address of the family.
 */
static INLINE bool snat_allocate(void *map, const struct flow_key *key, struct flow *flow, enum family family,
				 __u32 hash)
{
	const struct flow *held;
	struct flow_key reply_key;
	struct flow reply;

	snat_address_copy(family, &flow->new_source);
	if (!flow->new_source.words[3])
		return false;
	flow_mirror_key(key, flow, &reply_key);
	flow_mirror(key, flow, flow->last_seen, &reply);
	if (!snat_search(map, &reply_key, &reply, hash))
		return false;
	flow->new_source_port = reply_key.destination_port;
	held = bpf_map_lookup_elem(map, &reply_key);
	if (!held)
		return !bpf_map_update_elem(map, &reply_key, &reply, BPF_NOEXIST);
	/* Both directions carry the same stamp: the request's entry has expired too. */
	if (flow_expired(held, flow->last_seen))
		return !bpf_map_update_elem(map, &reply_key, &reply, BPF_EXIST);
	/* Another CPU was faster. */
	if (!flow_same(held, &reply))
		return false;
	/* This client's, from a connection that is over. */
	if (held->state == FLOW_CLOSING)
		return !bpf_map_update_elem(map, &reply_key, &reply, BPF_EXIST);
	/* This client's still: the request's entry was evicted, or another CPU is at the same packet. */
	flow->state = held->state;
	return true;
}
