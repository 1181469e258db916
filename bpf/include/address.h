/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Addresses of both families in 16 bytes. */
#pragma once

#include <bpf/bpf_endian.h>

#include "../maps/layout.h"
#include "compiler.h"

/* Values of AF_INET and AF_INET6, which no header of the kernel's user interface defines. */
enum family {
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,
};

static INLINE void address_set4(union address *address, __be32 ip4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xffff);
	address->words[3] = ip4;
}

static INLINE void address_set6(union address *address, const __be32 *ip6)
{
	address->words[0] = ip6[0];
	address->words[1] = ip6[1];
	address->words[2] = ip6[2];
	address->words[3] = ip6[3];
}

static INLINE bool address_is_mapped4(const union address *address)
{
	return !(address->words[0] | address->words[1] | (address->words[2] ^ bpf_htonl(0xffff)));
}

/* 0 where they are the same; without branches, which the verifier would have to follow. */
static INLINE __u32 address_differ(const union address *a, const volatile union address *b)
{
	return (a->words[3] ^ b->words[3]) | (a->words[2] ^ b->words[2]) | (a->words[1] ^ b->words[1]) |
	       (a->words[0] ^ b->words[0]);
}

static INLINE bool address_equal(const union address *a, const volatile union address *b)
{
	return !address_differ(a, b);
}

/* May a packet come from here: not if it is unspecified, loopback, multicast or the limited broadcast
 * (RFC 1122, 3.2.1.3; RFC 4291, 2.5 and 2.7).
 */
static INLINE bool address_is_source(const union address *address, enum family family)
{
	__u32 last = bpf_ntohl(address->words[3]);

	if (family == FAMILY_IPV4) {
		__u8 network = last >> 24;

		return network != 0 && network != 127 && (network < 224 || network > 239) && last != 0xffffffff;
	}
	if (address->bytes[0] == 0xff)
		return false;
	return (address->words[0] | address->words[1] | address->words[2]) != 0 || last > 1;
}
