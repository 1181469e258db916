/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Context vocabulary, XDP: the only place that knows the hook. lib/ speaks this vocabulary alone, so that
 * another hook needs another ctx_*.h and nothing else.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#include "compiler.h"

#define CTX_PASS XDP_PASS
#define CTX_DROP XDP_DROP

typedef struct xdp_md context;

static INLINE void *ctx_data(const context *ctx)
{
	return (void *)(long)ctx->data;
}

static INLINE void *ctx_data_end(const context *ctx)
{
	return (void *)(long)ctx->data_end;
}

/* Bytes of the frame, Ethernet header included, checksum not. */
static INLINE __u32 ctx_length(const context *ctx)
{
	__u64 length = ctx_data_end(ctx) - ctx_data(ctx);

	/* The verifier allows the difference of two pointers, but not what the compiler would make of it. */
	opaque(length);
	return (__u32)length;
}

static INLINE __u32 ctx_device(const context *ctx)
{
	return ctx->ingress_ifindex;
}

/* Send the frame out of a device.
 *
 * The receiving device is no exception: veth queues what XDP_TX sends, but wakes its peer only where that has an XDP
 * program too, while a redirected frame arrives wherever the peer has NAPI.
 */
static INLINE int ctx_send(__u32 device)
{
	return (int)bpf_redirect(device, 0);
}

/* Make room in front of the frame, or fail; all packet pointers are void afterwards. */
static INLINE int ctx_grow_head(context *ctx, __u32 bytes)
{
	return (int)bpf_xdp_adjust_head(ctx, -(int)bytes);
}

/* Cut the frame to a length that it has, or fail; all packet pointers are void afterwards. */
static INLINE int ctx_trim(context *ctx, __u32 length)
{
	return (int)bpf_xdp_adjust_tail(ctx, (int)(length - ctx_length(ctx)));
}
