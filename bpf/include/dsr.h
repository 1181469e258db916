/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Wire formats of direct server return, as Cilium has them. */
#pragma once

#include <linux/types.h>

#include "../maps/layout.h"

#define DSR_OPTION4_TYPE 0x9a /* copied into fragments; number 26 */
#define DSR_OPTION6_TYPE 0x1b /* whoever does not know it skips it */
#define DSR_OPTION6_LENGTH 20

/* IPv4 option, right behind the fixed header. */
struct dsr_option4 {
	__u8 type;
	__u8 length;
	__be16 port;
	__be32 address;
};

/* IPv6 destination options header with the one option, right behind the IPv6 header. */
struct dsr_option6 {
	__u8 next_header;
	__u8 header_length; /* in 8 bytes, less one */
	__u8 type;
	__u8 length;
	union address address;
	__be16 port;
	__u16 pad;
};

#define GENEVE_PORT 6081
#define GENEVE_ETHERNET 0x6558
#define GENEVE_CRITICAL 0x40
#define GENEVE_VNI_WORLD 2

/* Geneve header (RFC 8926, 3.4). */
struct geneve {
	__u8 options; /* upper 2 bits: version 0; length of the options in 4 bytes */
	__u8 flags;
	__be16 protocol;
	__be32 vni; /* upper 24 bits */
};

#define DSR_GENEVE_CLASS 0x014b
#define DSR_GENEVE_TYPE 0x81

struct geneve_option {
	__be16 option_class;
	__u8 type;
	__u8 length; /* of the data, in 4 bytes */
};

struct dsr_geneve4 {
	struct geneve_option head;
	__be32 address;
	__be16 port;
	__u16 pad;
};

struct dsr_geneve6 {
	struct geneve_option head;
	union address address;
	__be16 port;
	__u16 pad;
};
