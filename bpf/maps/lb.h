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

/* Lookup tables of services, each one map value: replaced by swapping a pointer. The executor loads with the
 * table size that is configured.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DEFAULT_LUTS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32[DEFAULT_TABLE_SIZE]);
	});
} luts_v1 SEC(".maps");

/* Addresses with a meaning beyond one port: VIPs, whose other ports are closed. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_SERVICES);
	__type(key, union address);
	__type(value, __u32);
} addresses_v1 SEC(".maps");

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
