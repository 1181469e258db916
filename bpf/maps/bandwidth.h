/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Maps of the bandwidth manager's programs; pinned like the load balancer's (lb.h). */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../include/bandwidth_outcomes.h"
#include "layout.h"

#define DEFAULT_ENDPOINTS 65536
#define MAX_NATIVES 4096

/* Endpoints by the device on the host's side (ifindex): their numbers. The host itself has none here. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_ENDPOINTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} endpoints_v1 SEC(".maps");

/* Devices that lead out of the node (ifindex), where endpoints' packets are routed by the programs. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_NATIVES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} natives_v1 SEC(".maps");

/* What is configured for an endpoint in one direction; written by the executor alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * DEFAULT_ENDPOINTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rate_key);
	__type(value, struct rate);
} rates_v1 SEC(".maps");

/* When an endpoint's last packet left, or leaves: slots of departure_of(). Apart from the rate, so that changing that
 * neither loses nor resets it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ENDPOINT_SLOTS);
	__type(key, __u32);
	__type(value, struct departure);
} departures_v1 SEC(".maps");

/* What passed and what was dropped, of endpoints that have a rate. The programs make the entries. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2 * DEFAULT_ENDPOINTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct rate_key);
	__type(value, struct traffic);
} bandwidth_stats_v1 SEC(".maps");

/* What became of every packet, by enum bandwidth_outcome. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, BANDWIDTH_OUTCOMES_COUNT);
	__type(key, __u32);
	__type(value, struct counter);
} bandwidth_outcomes_v1 SEC(".maps");
