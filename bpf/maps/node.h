/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Maps of the programs on the nodes that backends are on; pinned like the load balancer's (lb.h). */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../include/node_outcomes.h"
#include "layout.h"

#define DEFAULT_RECORDS 65536
#define DEFAULT_REPLY_FRAGMENTS 8192

/* Services of flows that began: what a single forged packet can enter, SYNs above all. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_RECORDS);
	__type(key, struct flow_key);
	__type(value, struct dsr_frontend);
} dsr_openings_v1 SEC(".maps");

/* Those of TCP connections that this node answered: apart, so that a flood evicts no established flow. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_RECORDS);
	__type(key, struct flow_key);
	__type(value, struct dsr_frontend);
} dsr_replies_v1 SEC(".maps");

/* Services of replies that leave in fragments, of which only the first has ports. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_REPLY_FRAGMENTS);
	__type(key, struct fragment_key);
	__type(value, struct dsr_frontend);
} dsr_fragments_v1 SEC(".maps");

/* What became of every packet, by enum node_outcome. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NODE_OUTCOMES_COUNT);
	__type(key, __u32);
	__type(value, struct counter);
} node_outcomes_v1 SEC(".maps");
