/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The question to the kernel's routing table. */
#pragma once

#include <linux/bpf.h>

#include "../include/address.h"

static INLINE void fib_between(struct bpf_fib_lookup *fib, enum family family, const volatile union address *source,
			       const union address *destination)
{
	fib->family = family;
	if (family == FAMILY_IPV4) {
		fib->ipv4_src = source->words[3];
		fib->ipv4_dst = destination->words[3];
		return;
	}
	for (int i = 0; i < 4; i++)
		fib->ipv6_src[i] = source->words[i];
	__builtin_memcpy(fib->ipv6_dst, destination, sizeof(fib->ipv6_dst));
}
