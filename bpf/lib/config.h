/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The configuration: constant while the program is loaded, so that the verifier removes what is switched off. */
#pragma once

#include <bpf/bpf_helpers.h>

#include "../include/address.h"
#include "../maps/layout.h"

const volatile struct config config SEC(".rodata.config");

static INLINE bool family_enabled(enum family family)
{
	return family == FAMILY_IPV4 ? config.enable_ipv4 : config.enable_ipv6;
}

/* Source address towards backends of a family; all zero where the node has none. */
static INLINE const volatile union address *snat_address(enum family family)
{
	return family == FAMILY_IPV4 ? &config.snat_address4 : &config.snat_address6;
}

/* The same, copied. */
static INLINE void snat_address_copy(enum family family, union address *copy)
{
	const volatile union address *address = snat_address(family);

	opaque(address);
	for (int i = 0; i < 4; i++)
		copy->words[i] = address->words[i];
}

/* Flows are stamped at most this often (jiffies), which keeps their cache lines clean. */
static INLINE __u32 stamp_interval(void)
{
	return config.tcp_closing_timeout / 8;
}

static INLINE bool mode_in_use(enum forwarding_mode mode)
{
	return config.forwarding_modes & mode;
}
