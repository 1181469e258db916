/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Included before the load balancer's source, this counts its calls of helpers, by number of the helper
 * (enum bpf_func_id). Those that are not listed here are found by the harness, which refuses to go on.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__u64 helper_calls[256] SEC(".data.calls");

#define COUNTED(id, call) (helper_calls[id]++, call)

#define bpf_map_lookup_elem(...) COUNTED(1, bpf_map_lookup_elem(__VA_ARGS__))
#define bpf_map_update_elem(...) COUNTED(2, bpf_map_update_elem(__VA_ARGS__))
#define bpf_map_delete_elem(...) COUNTED(3, bpf_map_delete_elem(__VA_ARGS__))
#define bpf_ktime_get_ns(...) COUNTED(5, bpf_ktime_get_ns(__VA_ARGS__))
#define bpf_get_prandom_u32(...) COUNTED(7, bpf_get_prandom_u32(__VA_ARGS__))
#define bpf_redirect(...) COUNTED(23, bpf_redirect(__VA_ARGS__))
#define bpf_perf_event_output(...) COUNTED(25, bpf_perf_event_output(__VA_ARGS__))
#define bpf_xdp_adjust_head(...) COUNTED(44, bpf_xdp_adjust_head(__VA_ARGS__))
#define bpf_xdp_adjust_tail(...) COUNTED(65, bpf_xdp_adjust_tail(__VA_ARGS__))
#define bpf_fib_lookup(...) COUNTED(69, bpf_fib_lookup(__VA_ARGS__))
#define bpf_jiffies64(...) COUNTED(118, bpf_jiffies64(__VA_ARGS__))
#define bpf_xdp_get_buff_len(...) COUNTED(188, bpf_xdp_get_buff_len(__VA_ARGS__))
