/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Counters: every packet once by outcome; what is forwarded (either direction, replies left to the stack
 * included) once by service and once by backend. Bytes are those of the frame as it came in;
 * by service and backend without tags of VLANs.
 */
#pragma once

#include "../include/counter.h"
#include "../include/packet.h"
#include "../maps/lb.h"

static INLINE void count_outcome(__u32 outcome, __u32 bytes)
{
	count(bpf_map_lookup_elem(&outcomes_v1, &outcome), bytes);
}

static INLINE void count_forwarded(__u32 lut_id, __u32 backend_id, __u32 bytes)
{
	count(bpf_map_lookup_elem(&service_stats_v1, &lut_id), bytes);
	count(bpf_map_lookup_elem(&backend_stats_v1, &backend_id), bytes);
}
