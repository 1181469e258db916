/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Context vocabulary, tc: what ctx_xdp.h is for XDP. Here one packet may stand for many (GSO), its data may be in
 * pieces, and its checksum may still have to be made by a device: the kernel's helpers know, so they do the changes.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "checksum.h"
#include "compiler.h"

/* Other programs at this hook have their say. */
#define CTX_PASS TC_ACT_UNSPEC
#define CTX_DROP TC_ACT_SHOT

typedef struct __sk_buff context;

/* Headers that parsers look at: Ethernet, IP with extensions, ICMP, the packet that it quotes. */
#define CTX_HEADERS 192

/* Further than any header that the parsers find. */
#define CTX_OFFSETS 0x3fff

static INLINE void *ctx_data(const context *ctx)
{
	return (void *)(long)context_field(ctx, data);
}

static INLINE void *ctx_data_end(const context *ctx)
{
	return (void *)(long)context_field(ctx, data_end);
}

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
	return (__u32)context_field(ctx, len);
}

static INLINE __u32 ctx_device(const context *ctx)
{
	return (__u32)context_field(ctx, ifindex);
}

/* Send the frame out of a device. */
static INLINE int ctx_send(const context *ctx, __u32 device)
{
	(void)ctx;
	return (int)bpf_redirect(device, 0);
}

/* Has the kernel taken a VLAN tag off the frame. */
static INLINE bool ctx_untagged(const context *ctx)
{
	return context_field(ctx, vlan_present);
}

/* Makes what the parsers read directly accessible. */
static INLINE void ctx_prepare(context *ctx)
{
	__u32 headers = minimum(ctx_length(ctx), CTX_HEADERS);

	if (ctx_data(ctx) + headers > ctx_data_end(ctx))
		bpf_skb_pull_data(ctx, headers);
}

/* Length that an IP packet will have on the wire; here it may stand for many that are still to be cut. */
static INLINE __u32 ctx_wire_length(const context *ctx, __u32 length, __u32 transport)
{
	__u32 payload = (__u32)context_field(ctx, gso_size);
	const struct tcphdr *tcp = ctx_at(ctx, transport);

	if (!payload || (void *)(tcp + 1) > ctx_data_end(ctx))
		return length;
	return minimum(length, transport - ETH_HLEN + tcp->doff * 4 + payload);
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
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;

	if (what != INSERT_PLAIN)
		flags |= family == FAMILY_IPV4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	if (what == INSERT_GENEVE)
		flags |= BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN);
	return (int)bpf_skb_adjust_room(ctx, (__s32)bytes, BPF_ADJ_ROOM_MAC, flags);
}

/* Remove `bytes` of headers behind the Ethernet header, or fail (not 0); else as above. */
static INLINE int ctx_remove_headers(context *ctx, __u32 bytes)
{
	return (int)bpf_skb_adjust_room(ctx, -(__s32)bytes, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Make room right behind the fixed IP header, or fail (not 0); else as above. */
static INLINE int ctx_insert_option(context *ctx, __u32 bytes, enum family family)
{
	(void)family;
	return (int)bpf_skb_adjust_room(ctx, (__s32)bytes, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* For tags of VLANs, which only XDP has to care about. */
static INLINE int ctx_remove_front(context *ctx, __u32 bytes)
{
	(void)ctx;
	(void)bytes;
	return -1;
}

static INLINE int ctx_add_front(context *ctx, __u32 bytes)
{
	return ctx_remove_front(ctx, bytes);
}

/* Cut the frame to a length that it has, and make all of it accessible, or fail; all packet pointers are void
 * afterwards.
 */
static INLINE int ctx_trim(context *ctx, __u32 length)
{
	if (bpf_skb_change_tail(ctx, length, 0))
		return -1;
	return (int)bpf_skb_pull_data(ctx, length);
}

/* A sum as the kernel's helpers take it. */
static INLINE __u32 checksum_difference(__u64 change)
{
	change = (change & 0xffffffff) + (change >> 32);
	return (__u32)((change & 0xffffffff) + (change >> 32));
}

/* Bring a TCP, UDP or ICMPv6 checksum at `offset` up to date: `addresses` is the change of what the pseudo-header
 * covers, `payload` of the rest; `zero_is_none` for UDP. Packet pointers may be void afterwards. False where the frame
 * ends before.
 */
static INLINE bool ctx_update_checksum(context *ctx, __u32 offset, __u64 addresses, __u64 payload, bool zero_is_none)
{
	__u64 flags = zero_is_none ? BPF_F_MARK_MANGLED_0 : 0;

	return !bpf_l4_csum_replace(ctx, offset, 0, checksum_difference(addresses), flags | BPF_F_PSEUDO_HDR) &&
	       !bpf_l4_csum_replace(ctx, offset, 0, checksum_difference(payload), flags);
}
