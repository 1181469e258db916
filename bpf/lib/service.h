/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Which service a packet is addressed to. */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"

/* Flags of addresses_v1. */
#define ADDRESS_VIP 1

static INLINE struct service *service_lookup(const struct flow_key *tuple)
{
	struct service_key key = {
		.address = tuple->destination,
		.port = tuple->destination_port,
		.protocol = tuple->protocol,
	};

	return bpf_map_lookup_elem(&services_v1, &key);
}

static INLINE bool address_is_vip(const union address *address)
{
	const __u32 *flags = bpf_map_lookup_elem(&addresses_v1, address);

	return flags && (*flags & ADDRESS_VIP);
}
