/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Context vocabulary, XDP: the only place that knows the hook. lib/ speaks this vocabulary alone, so that
 * another hook needs another ctx_*.h and nothing else.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "checksum.h"
#include "../maps/layout.h"
#include "compiler.h"

/* Defined in lib/config.h. */
extern const volatile struct config config;

#define CTX_PASS XDP_PASS
#define CTX_DROP XDP_DROP

typedef struct xdp_md context;

static INLINE void *ctx_data(const context *ctx)
{
	return (void *)(long)context_field(ctx, data);
}

static INLINE void *ctx_data_end(const context *ctx)
{
	return (void *)(long)context_field(ctx, data_end);
}

/* Further than any header that the parsers find. */
#define CTX_OFFSETS 0x3fff

/* What is `offset` bytes into the frame. Older kernels forget the bounds of an offset that was on the stack. */
static INLINE void *ctx_at(const context *ctx, __u32 offset)
{
	__u64 bounded = offset;

	opaque(bounded);
	return ctx_data(ctx) + (bounded & CTX_OFFSETS);
}

/* Bytes of the frame, Ethernet header included, checksum not. */
static INLINE __u32 ctx_length(const context *ctx)
{
	__u64 length;

	if (config.multi_buffer)
		return (__u32)bpf_xdp_get_buff_len((struct xdp_md *)ctx);
	length = ctx_data_end(ctx) - ctx_data(ctx);
	/* The verifier allows the difference of two pointers, but not what the compiler would make of it. */
	opaque(length);
	return (__u32)length;
}

static INLINE __u32 ctx_device(const context *ctx)
{
	return (__u32)context_field(ctx, ingress_ifindex);
}

/* Send the frame out of a device.
 *
 * XDP_TX is cheaper than a redirect to where the frame came from. But what a veth sends that way is queued, and its peer
 * is woken only where that has an XDP program too, while a redirected frame arrives wherever the peer has NAPI.
 */
static INLINE int ctx_send(const context *ctx, __u32 device)
{
	if (config.transmit && device == ctx_device(ctx))
		return XDP_TX;
	return (int)bpf_redirect(device, 0);
}

/* Has the kernel taken a VLAN tag off the frame. */
static INLINE bool ctx_untagged(const context *ctx)
{
	(void)ctx;
	return false;
}

/* Makes what the parsers read directly accessible. */
static INLINE void ctx_prepare(context *ctx)
{
	(void)ctx;
}

/* Length that an IP packet will have on the wire; at tc it may stand for many that are still to be cut. */
static INLINE __u32 ctx_wire_length(const context *ctx, __u32 length, __u32 transport)
{
	(void)ctx;
	(void)transport;
	return length;
}

/* What ctx_insert_headers inserts. */
enum insertion {
	INSERT_PLAIN,  /* headers of the same family, no tunnel */
	INSERT_IP,     /* outer IP header */
	INSERT_GENEVE, /* outer IP, UDP and Geneve header, inner Ethernet header */
};

/* Make room for headers of `family` between the Ethernet and the IP header, or fail (not 0). All packet pointers are
 * void afterwards, and the Ethernet header, which is at the new start, has to be written whole.
 */
static INLINE int ctx_insert_headers(context *ctx, __u32 bytes, enum family family, enum insertion what)
{
	(void)family;
	(void)what;
	return (int)bpf_xdp_adjust_head(ctx, -(int)bytes);
}

/* Remove `bytes` of headers behind the Ethernet header, or fail (not 0); else as above. */
static INLINE int ctx_remove_headers(context *ctx, __u32 bytes)
{
	return (int)bpf_xdp_adjust_head(ctx, (int)bytes);
}

/* Make room right behind the fixed IP header, or fail (not 0); else as above. */
static INLINE int ctx_insert_option(context *ctx, __u32 bytes, enum family family)
{
	struct ipv6hdr ip6;
	struct iphdr ip4;
	void *data;

	if (bpf_xdp_adjust_head(ctx, -(int)bytes))
		return -1;
	data = ctx_data(ctx);
	if (data + ETH_HLEN + sizeof(ip6) + bytes > ctx_data_end(ctx)) {
		/* An IPv4 packet may be shorter than that. */
		if (family != FAMILY_IPV4 || data + ETH_HLEN + sizeof(ip4) + bytes > ctx_data_end(ctx))
			return -1;
	}
	if (family == FAMILY_IPV4) {
		__builtin_memcpy(&ip4, data + bytes + ETH_HLEN, sizeof(ip4));
		__builtin_memcpy(data + ETH_HLEN, &ip4, sizeof(ip4));
	} else {
		__builtin_memcpy(&ip6, data + bytes + ETH_HLEN, sizeof(ip6));
		__builtin_memcpy(data + ETH_HLEN, &ip6, sizeof(ip6));
	}
	return 0;
}

/* Move the frame's start forward over `bytes`, or back; not 0 where there are not as many. All packet pointers are void
 * afterwards.
 */
static INLINE int ctx_remove_front(context *ctx, __u32 bytes)
{
	return (int)bpf_xdp_adjust_head(ctx, (int)bytes);
}

static INLINE int ctx_add_front(context *ctx, __u32 bytes)
{
	return (int)bpf_xdp_adjust_head(ctx, -(int)bytes);
}

/* Cut the frame to a length that it has, or fail; all packet pointers are void afterwards. */
static INLINE int ctx_trim(context *ctx, __u32 length)
{
	return (int)bpf_xdp_adjust_tail(ctx, (int)(length - ctx_length(ctx)));
}

/* Bring a TCP, UDP or ICMPv6 checksum at `offset` up to date: `addresses` is the change of what the pseudo-header
 * covers, `payload` of the rest; `zero_is_none` for UDP. Packet pointers may be void afterwards. False where the frame
 * ends before.
 */
static INLINE bool ctx_update_checksum(context *ctx, __u32 offset, __u64 addresses, __u64 payload, bool zero_is_none)
{
	__sum16 *checksum = ctx_at(ctx, offset);

	if ((void *)(checksum + 1) > ctx_data_end(ctx))
		return false;
	/* UDP: 0 says that there is none, so a sum of 0 is sent as its other form (RFC 768). */
	if (zero_is_none && !*checksum)
		return true;
	*checksum = checksum_update(*checksum, addresses + payload);
	if (zero_is_none && !*checksum)
		*checksum = 0xffff;
	return true;
}
