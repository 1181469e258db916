/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Which service a packet is addressed to.
 *
 * A hash lookup is the dearest thing that a packet needs, and few frontends have most of the packets. So every CPU
 * remembers answers, also that there is no service; a counter that the executor moves voids them all.
 */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"
#include "scratch.h"

/* Flags of addresses_v1. */
#define ADDRESS_VIP 1

static INLINE void service_key_of(const struct flow_key *tuple, struct service_key *key)
{
	key->address = tuple->destination;
	key->port = tuple->destination_port;
	key->protocol = tuple->protocol;
	key->pad = 0;
}

static INLINE struct service *service_lookup(const struct flow_key *tuple)
{
	struct service_key key;

	service_key_of(tuple, &key);
	return bpf_map_lookup_elem(&services_v1, &key);
}

static INLINE bool address_is_vip(const union address *address)
{
	const __u32 *flags = bpf_map_lookup_elem(&addresses_v1, address);

	return flags && (*flags & ADDRESS_VIP);
}

static INLINE struct lookup *lookup_place(const struct flow_key *tuple)
{
	__u32 sum = tuple->destination.words[3] + ((__u32)tuple->destination_port << 8) + tuple->protocol;
	__u32 index = sum * 2654435769U >> (32 - LOOKUP_BITS); /* Fibonacci hashing: the upper bits are good */

	return bpf_map_lookup_elem(&lookups_v1, &index);
}

/* Look up whom scratch()->packet is addressed to, and remember the answer. */
SLOW int service_ask(context *ctx)
{
	struct scratch *s = scratch();
	const struct service *service;
	struct lookup *answer;
	__u32 zero = 0;
	const __u32 *generation = bpf_map_lookup_elem(&generation_v1, &zero);

	keep_argument(ctx);
	if (!s || !generation)
		return 0;
	answer = lookup_place(&s->packet.tuple);
	if (!answer)
		return 0;
	/* First: what changes while this looks is void at once. */
	answer->generation = *(const volatile __u32 *)generation;
	service_key_of(&s->packet.tuple, &answer->key);
	service = service_lookup(&s->packet.tuple);
	if (service) {
		answer->service = *service;
		answer->found = FOUND_SERVICE;
	} else {
		answer->found = address_is_vip(&s->packet.tuple.destination) ? FOUND_VIP : FOUND_NOTHING;
	}
	return 0;
}

/* Whom a packet is addressed to; NULL only where maps are missing. */
static INLINE const struct lookup *service_find(context *ctx, const struct flow_key *tuple)
{
	struct lookup *answer = lookup_place(tuple);
	__u32 zero = 0;
	const __u32 *generation = bpf_map_lookup_elem(&generation_v1, &zero);

	if (!answer || !generation)
		return NULL;
	if (unlikely(answer->generation != *generation || answer->key.port != tuple->destination_port ||
		     answer->key.protocol != tuple->protocol ||
		     address_differ(&answer->key.address, &tuple->destination)))
		service_ask(ctx);
	return answer;
}
