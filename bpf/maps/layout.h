/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Layouts that the programs share with the executor (executor/datapath/compile/layouts.py).
 *
 * A test compares both sides through BTF, so neither can change alone. Every structure is
 * padded explicitly: a hole would put stack garbage into a map key. A change of layout takes
 * a new version in the names of the maps that use it (lb.h).
 */
#pragma once

#include <linux/bpf.h> /* struct bpf_spin_lock */
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
	__u8 flags;		/* enum service_flag, ORed */
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

/* What a direct server return flow is held to where its slot alone does not tell. */
struct choice {
	__u32 backend_id;
	__u32 lut_id;
	__u32 last_seen;	/* jiffies, low 32 bits */
	__u8 closing;		/* the client sent FIN or RST: its next SYN begins anew */
	__u8 pad[3];
};

/* Key of a datagram in fragments; what it stands for is in the first only. */
struct fragment_key {
	union address source;
	union address destination;
	__u32 id;
	__u8 protocol;		/* of the IP header, or of the fragment header */
	__u8 pad[3];
};

struct fragment {
	__be16 source_port;
	__be16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

/* A tag as it stands in a frame (IEEE 802.1Q, 9.4): in front of the protocol of what it is on. */
struct vlan_tag {
	__be16 protocol;	/* 802.1Q or 802.1ad; 0: there is none */
	__be16 control;		/* priority and VLAN id; in maps the id alone */
};

/* Tags that are looked behind: a provider's around a customer's (QinQ). */
#define VLAN_TAGS 2

/* How frames of a VLAN device come in and leave: by this device, with these tags, outermost first. */
struct vlan {
	__u32 device;
	struct vlan_tag tags[VLAN_TAGS];
};

/* An answer of the routing table. */
struct nexthop {
	union address destination;
	__u32 received_on;
	__u32 device;
	__u32 asked;		/* jiffies, low 32 bits */
	struct vlan_tag tags[VLAN_TAGS]; /* that frames get on their way out */
	__u8 macs[12];		/* destination and source, as they stand in a frame */
	__u16 mtu;
	__u16 pad;
};

/* An answer of services_v1 and addresses_v1, of this generation of theirs. */
struct lookup {
	struct service_key key;
	__u32 generation;
	struct service service;	/* where `found` says that there is one */
	__u32 found;		/* enum found */
};

enum found {
	FOUND_SERVICE = 1,
	FOUND_VIP = 2,	/* whose port belongs to no service */
	FOUND_NOTHING = 3,
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
	__u32 history_window_tcp;	/* seconds after a change that unrecorded flows keep their slot's previous owner */
	__u32 history_window_any;
	__be32 encap_mask4;		/* bits of the outer source that the flow's hash fills, so that receivers spread */
	__be32 encap_mask6;		/* the same in an IPv6 address's last word */
	union address encap_source4;	/* outer source of tunnelled packets, v4-mapped */
	union address encap_source6;
	__u32 nexthop_age;		/* jiffies that an answer of the routing table is used */
	__u8 forwarding_modes;		/* enum forwarding_mode, ORed: those that some service may use */
	__u8 dsr_dispatch;		/* enum dispatch */
	__u8 multi_buffer;		/* frames may be in several buffers (jumbo) */
	__u8 transmit;			/* XDP: every driver sends by XDP_TX whatever is at the other end */
	__u8 vlans;			/* XDP: the node has VLAN devices */
	__u8 peers;			/* there are other load balancers, which errors about their flows go to */
	__u8 pad[2];
};

/* What `datapath capture` asks for: either end's address in a network, either end's port; 0 is any. Section
 * `.rodata.capture`.
 */
struct capture {
	union address address;	/* with the bits of `mask` */
	union address mask;
	__u32 enabled;
	__u32 snaplen;		/* bytes of a frame, at most */
	__u32 device;		/* that received it */
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

enum capture_phase {
	CAPTURE_BEFORE = 0,
	CAPTURE_AFTER = 1,
};

/* In front of the frame's bytes in `capture_events`. */
struct capture_event {
	__u64 time;		/* nanoseconds, CLOCK_MONOTONIC */
	__u32 length;		/* of the frame */
	__u32 captured;		/* bytes that follow */
	__u32 device;		/* that received it */
	__u32 sent_by;		/* where it was sent to a device: that one */
	__u16 outcome;
	__u8 phase;		/* enum capture_phase */
	__u8 pad[5];
};

/* A slot of a table is a backend's id, and this bit where the service's history has another one for it. */
#define SLOT_MOVED 0x80000000U

enum service_flag {
	SERVICE_DSR = 1,	/* backends answer the client themselves; else through this node (SNAT) */
};

enum forwarding_mode {
	MODE_SNAT = 1,
	MODE_DSR = 2,
};

/* How a packet for direct server return tells the backend which service it was sent to. */
enum dispatch {
	DISPATCH_NONE = 0,
	DISPATCH_OPT = 1,	/* IPv4 option, IPv6 destination option */
	DISPATCH_IPIP = 2,
	DISPATCH_GENEVE = 3,
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

/* --- programs of the nodes that backends are on (tc_node.bpf.c) --- */

/* What a direct server return packet was addressed to: the source of its reply. Key: struct flow_key of the packet as
 * the backend sees it, direction REQUEST.
 */
struct dsr_frontend {
	union address address;
	__be16 port;
	__u16 pad;
};

struct node_config {
	__u8 build_id[16];		/* of the object files; tells versions apart */
	__u8 enable_ipv4;
	__u8 enable_ipv6;
	__u8 enable_opt;		/* dispatches that are understood */
	__u8 enable_geneve;
	__u8 enable_ipip;
	__u8 pad[3];
};

/* --- programs of the bandwidth manager (tc_bandwidth.bpf.c) --- */

/* Numbers of endpoints travel in skb->queue_mapping. Network cards leave the receive queue there in packets that are
 * forwarded, plus one, and no card has so many queues; the kernel refuses 65535 (NO_QUEUE_MAPPING).
 */
#define ENDPOINT_FIRST 4096
#define ENDPOINT_HOST ENDPOINT_FIRST	/* the host itself, always */
#define ENDPOINT_LAST 65534
#define ENDPOINT_SLOTS (2 * (ENDPOINT_LAST - ENDPOINT_FIRST + 1))

/* Seen from the endpoint. */
enum rate_direction {
	RATE_EGRESS = 0,
	RATE_INGRESS = 1,
};

struct rate_key {
	__u32 endpoint;		/* its number */
	__u8 direction;		/* enum rate_direction */
	__u8 pad[3];
};

struct rate {
	__u64 bytes_per_second;	/* 0: as fast as it likes */
	__u64 horizon;		/* egress: ns that a departure may be ahead, less than this */
	__u64 burst;		/* ingress: bytes that may arrive at once after a pause */
	__u32 priority;		/* egress: of the packets, for fq's bands; 0: their own */
	__u32 pad;
};

struct departure {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 last;		/* CLOCK_MONOTONIC, ns */
};

struct traffic {
	__u64 passed_packets;
	__u64 passed_bytes;
	__u64 dropped_packets;
	__u64 dropped_bytes;
};

struct bandwidth_config {
	__u8 build_id[16];		/* of the object files; tells versions apart */
	__u64 horizon;			/* ns; that of fq, which drops what is further ahead */
	__u8 route;			/* what endpoints send is routed by the programs */
	__u8 pad[7];
};

/* --- the program by which the host's own sockets have BBR (sock_bbr.bpf.c) --- */

struct bbr_config {
	__u8 build_id[16];		/* of the object files; tells versions apart */
	__u64 netns_cookie;		/* of the host's network namespace */
	__u8 congestion[16];		/* the host's default algorithm: TCP_CA_NAME_MAX, zeroes behind the name */
};
