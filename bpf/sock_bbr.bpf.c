// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* BBR for the host's own TCP sockets. The host's sysctl would do that, too, but every network namespace that is made
 * afterwards begins with the host's value, so endpoints would have BBR as well.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "include/compiler.h"
#include "maps/layout.h"

#define SOL_TCP 6
#define TCP_CONGESTION 13
/* Of a program at a cgroup: operations that ask something have their answer in `reply`, which stays empty. */
#define ALLOWED 1

const volatile struct bbr_config bbr_config SEC(".rodata.config");

char _license[] SEC("license") = "Dual BSD/GPL";

/* Whoever chose an algorithm for a socket keeps it. */
static INLINE bool has_default(struct bpf_sock_ops *ops)
{
	__u8 name[sizeof(bbr_config.congestion)] = {};
	__u32 differs = 0;

	if (bpf_getsockopt(ops, SOL_TCP, TCP_CONGESTION, name, sizeof(name)))
		return false;
	for (__u32 i = 0; i < sizeof(name); i++)
		differs |= name[i] ^ bbr_config.congestion[i];
	return !differs;
}

/* A connection that begins, from either side. */
SEC("sockops")
int sock_bbr(struct bpf_sock_ops *ops)
{
	char bbr[] = "bbr";

	if (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return ALLOWED;
	if (bpf_get_netns_cookie(ops) == bbr_config.netns_cookie && has_default(ops))
		bpf_setsockopt(ops, SOL_TCP, TCP_CONGESTION, bbr, sizeof(bbr));
	return ALLOWED;
}
