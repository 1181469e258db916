/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Layouts that the programs share with the executor (executor/datapath/compile/layouts.py).
 *
 * A test compares both sides through BTF, so neither can change alone. Every structure is
 * padded explicitly: a hole would put stack garbage into a map key. A change of layout takes
 * a new version in the names of the maps that use it (lb.h).
 */
#pragma once

#include <linux/types.h>

/* IPv4 is carried v4-mapped (RFC 4291, 2.5.5.2): one code path and one map for both families. */
union address {
	__u8 bytes[16];
	__be32 words[4];
};

struct service_key {
	union address address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct service {
	__u32 lut_id;
	__u16 backend_count;	/* backends in the table; 0: nobody to send to */
	__u8 algorithm;		/* enum algorithm */
	__u8 flags;
};

struct backend {
	union address address;
	__be16 port;
	__u8 protocol;		/* 0: this id is free */
	__u8 state;		/* enum backend_state */
	__u32 lut_id;		/* the service and protocol that it belongs to */
};

struct flow_key {
	union address source;
	union address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 direction;		/* enum direction */
	__u16 pad;
};

struct flow {
	union address new_source;
	union address new_destination;
	__be16 new_source_port;
	__be16 new_destination_port;
	__u32 backend_id;
	__u32 lut_id;
	__u32 last_seen;	/* jiffies, low 32 bits */
	__u8 tcp_flags_seen;	/* TCP flags of this direction, ORed (RFC 9293, 3.1) */
	__u8 state;		/* enum flow_state; the same in both directions */
	__u8 pad[2];
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct config {
	__u8 build_id[16];		/* of the object file; tells versions apart */
	union address snat_address4;	/* source towards IPv4 backends, v4-mapped */
	union address snat_address6;
	__u16 snat_port_min;
	__u16 snat_port_max;
	__u32 maglev_table_size;
	__u32 hash_seed4;
	__u32 hash_seed6;
	__u32 tcp_established_timeout;	/* jiffies, as the two below */
	__u32 tcp_closing_timeout;
	__u32 any_timeout;
	__u8 enable_ipv4;
	__u8 enable_ipv6;
	__u8 wildcard_entries;		/* unknown ports of a VIP are dropped */
	__u8 reject_without_backend;	/* ICMP unreachable, else drop */
};

enum algorithm {
	ALGORITHM_RANDOM = 1,
	ALGORITHM_MAGLEV = 2,
};

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_TERMINATING = 1,
	BACKEND_QUARANTINED = 2,
	BACKEND_MAINTENANCE = 3,
};

enum direction {
	DIRECTION_REQUEST = 0,	/* client to VIP */
	DIRECTION_REPLY = 1,	/* backend to our SNAT address */
};

/* One bit each, so that a timeout is a sum. */
enum flow_state {
	FLOW_NEW = 0,		/* also every flow that is not TCP */
	FLOW_ESTABLISHED = 1,	/* TCP: the client sent more than its SYN */
	FLOW_CLOSING = 2,	/* TCP: FIN seen in both directions, or RST in one */
};
