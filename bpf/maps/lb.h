/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The load balancer's maps. The executor sizes, pins and fills them, so that they outlive programs.
 *
 * Sizes here are defaults for tests. A changed layout takes a new version in the map's name.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../include/outcomes.h"
#include "layout.h"

#define DEFAULT_SERVICES 65536
#define DEFAULT_BACKENDS 65536
#define DEFAULT_LUTS 65536
#define DEFAULT_FLOWS 65536
#define DEFAULT_TABLE_SIZE 16381
#define DEFAULT_FRAGMENTS 8192
#define DEFAULT_VLANS 4096
#define DEFAULT_PEERS 1024
#define NEXTHOPS_HALF 4096
#define LOOKUP_BITS 10

/* Frontends: what a packet is addressed to decides the service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_SERVICES);
	__type(key, struct service_key);
	__type(value, struct service);
} services_v1 SEC(".maps");

/* Backends by id, so that tables and flows name them in four bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DEFAULT_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends_v1 SEC(".maps");

/* Lookup tables of services, each one map value: replaced by swapping a pointer. Behind the slots is the second (since
 * boot) in which the table was written. The executor loads with the table size that is configured.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DEFAULT_LUTS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32[DEFAULT_TABLE_SIZE + 1]);
	});
} luts_v1 SEC(".maps");

/* Previous owners of a table's slots, in the same form. Read only where a slot is marked SLOT_MOVED, so only services
 * with direct server return have one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DEFAULT_LUTS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32[DEFAULT_TABLE_SIZE + 1]);
	});
} histories_v1 SEC(".maps");

/* Addresses with a meaning beyond one port: VIPs, whose other ports are closed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_SERVICES);
	__type(key, union address);
	__type(value, __u32);
} addresses_v1 SEC(".maps");

/* Grows with every change of services_v1 and addresses_v1, after it: answers of before are void. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} generation_v1 SEC(".maps");

/* Answers of both by frontend, direct-mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << LOOKUP_BITS);
	__type(key, __u32);
	__type(value, struct lookup);
} lookups_v1 SEC(".maps");

/* VLAN devices by index: where their frames leave. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_VLANS);
	__type(key, __u32);
	__type(value, struct vlan);
} vlans_out_v1 SEC(".maps");

/* VLAN devices, their indices, by how their frames come in: those that the load balancer is to serve. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_VLANS);
	__type(key, struct vlan);
	__type(value, __u32);
} vlans_in_v1 SEC(".maps");

/* Load balancers by the address that packets to backends carry: the next one in the ring. The ring is the same on all,
 * in the order of addresses, each family by itself.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_PEERS);
	__type(key, union address);
	__type(value, union address);
} peers_v1 SEC(".maps");

/* TCP flows in both directions; the coldest make room for new ones. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows_tcp_v1 SEC(".maps");

/* All other flows: apart, so that a flood of UDP evicts no TCP connection. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows_any_v1 SEC(".maps");

/* Established TCP flows with direct server return whose slot changed owner: all other flows need no state. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct choice);
} choices_tcp_v1 SEC(".maps");

/* The same for what a single forged packet can enter, SYNs above all: apart, so that a flood evicts no established
 * flow.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_FLOWS);
	__type(key, struct flow_key);
	__type(value, struct choice);
} choices_any_v1 SEC(".maps");

/* Ports of datagrams whose first fragment was seen. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_FRAGMENTS);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments_v1 SEC(".maps");

/* Answers of the routing table, direct-mapped: backends by id in the first half, clients by hash in the second. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * NEXTHOPS_HALF);
	__type(key, __u32);
	__type(value, struct nexthop);
} nexthops_v1 SEC(".maps");

/* What became of every packet, by enum outcome. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES_COUNT);
	__type(key, __u32);
	__type(value, struct counter);
} outcomes_v1 SEC(".maps");

/* Packets of a service in both directions, by LUT id. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DEFAULT_LUTS);
	__type(key, __u32);
	__type(value, struct counter);
} service_stats_v1 SEC(".maps");

/* Packets of a backend in both directions, by backend id. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DEFAULT_BACKENDS);
	__type(key, __u32);
	__type(value, struct counter);
} backend_stats_v1 SEC(".maps");

/* Copies of frames, where the program is loaded to make them. More CPUs than that are not captured on. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1024);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} capture_events SEC(".maps");

struct answer_budget {
	__u64 second;	/* since boot */
	__u64 sent;	/* ICMP errors in it */
};

/* ICMP errors of the current second, which are limited (RFC 4443, 2.4 f); the executor has no use for it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer_budget);
} answer_budget_v1 SEC(".maps");

/* The same for errors that are handed to other load balancers: apart, so that forged ones leave room for answers. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer_budget);
} relay_budget_v1 SEC(".maps");
