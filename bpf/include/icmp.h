/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* ICMP and ICMPv6 as they stand on the wire. */
#pragma once

#include <linux/icmpv6.h>

#include "address.h"

/* RFC 792; linux/icmp.h cannot be included, it wants the C library's headers. */
enum icmp4 {
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_UNREACHABLE_PORT = 3,
	ICMP_UNREACHABLE_TOO_BIG = 4,
	ICMP_ECHO = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12,
};

/* Both ICMPs begin alike (RFC 792; RFC 4443, 2.1). */
struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 rest;
};

/* Does an error of this type quote a packet. */
static INLINE bool icmp_is_error(__u8 type, enum family family)
{
	if (family == FAMILY_IPV4)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
	return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
}
