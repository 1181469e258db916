/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Direct server return: what a packet carries to the backend, so that the backend itself answers the client with the
 * VIP as source. Wire formats are Cilium's: an IPv4 or IPv6 option, an IP tunnel, or Geneve with an option.
 */
#pragma once

#include "../include/checksum.h"
#include "../include/dsr.h"
#include "choice.h"
#include "nexthop.h"
#include "rewrite.h"
#include "tunnel.h"

static INLINE enum family backend_family(const struct backend *backend)
{
	return address_is_mapped4(&backend->address) ? FAMILY_IPV4 : FAMILY_IPV6;
}

/* Does a packet tell the backend its service: TCP does so once, in the SYN. */
static INLINE bool dsr_tells(const struct packet *packet)
{
	return packet->tuple.protocol != IPPROTO_TCP || packet_opens(packet);
}

/* Bytes that the dispatch adds. */
static INLINE __u32 dsr_overhead(enum family inner, enum family outer, bool tells)
{
	__u32 option = inner == FAMILY_IPV4 ? sizeof(struct dsr_option4) : sizeof(struct dsr_option6);
	__u32 header = network_header(outer);

	switch (config.dsr_dispatch) {
	case DISPATCH_OPT:
		return tells ? option : 0;
	case DISPATCH_IPIP:
		return header;
	default:
		option = inner == FAMILY_IPV4 ? sizeof(struct dsr_geneve4) : sizeof(struct dsr_geneve6);
		return header + sizeof(struct udphdr) + sizeof(struct geneve) + ETH_HLEN +
		       (tells ? option : 0);
	}
}

/* Insert the IPv4 option: `9a 08`, port, address. */
static INLINE int dsr_option_insert4(context *ctx, const struct packet *packet)
{
	struct dsr_option4 *option;
	__be16 length, version;
	struct iphdr *ip;
	__u64 change = 0;

	/* A header has at most 60 bytes. */
	if (packet->transport > ETH_HLEN + 60 - sizeof(*option) || ctx_insert_option(ctx, sizeof(*option), FAMILY_IPV4))
		return OUTCOME_NO_ROOM_DROPPED;
	ip = ctx_data(ctx) + ETH_HLEN;
	option = (void *)(ip + 1);
	if ((void *)(option + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	option->type = DSR_OPTION4_TYPE;
	option->length = sizeof(*option);
	option->port = packet->tuple.destination_port;
	option->address = packet->tuple.destination.words[3];
	length = bpf_htons(packet->length + sizeof(*option));
	change += checksum_change(ip->tot_len, length);
	ip->tot_len = length;
	version = *(__be16 *)ip;
	ip->ihl += sizeof(*option) / 4;
	change += checksum_change(version, *(__be16 *)ip);
	change += checksum_sum(option, option + 1, sizeof(*option));
	ip->check = checksum_update(ip->check, change);
	return UNDECIDED;
}

/* Insert the IPv6 destination option: header, `1b 14`, address, port, padding. */
static INLINE int dsr_option_insert6(context *ctx, const struct packet *packet)
{
	struct dsr_option6 *option;
	struct ipv6hdr *ip;

	ip = ctx_data(ctx) + ETH_HLEN;
	if ((void *)(ip + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	/* Nothing may stand in front of hop-by-hop options (RFC 8200, 4.1). */
	if (ip->nexthdr == IPPROTO_HOPOPTS || ctx_insert_option(ctx, sizeof(*option), FAMILY_IPV6))
		return OUTCOME_NO_ROOM_DROPPED;
	ip = ctx_data(ctx) + ETH_HLEN;
	option = (void *)(ip + 1);
	if ((void *)(option + 1) > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	option->next_header = ip->nexthdr;
	option->header_length = sizeof(*option) / 8 - 1;
	option->type = DSR_OPTION6_TYPE;
	option->length = DSR_OPTION6_LENGTH;
	option->address = packet->tuple.destination;
	option->port = packet->tuple.destination_port;
	option->pad = 0;
	ip->nexthdr = IPPROTO_DSTOPTS;
	ip->payload_len = bpf_htons(packet->length - sizeof(*ip) + sizeof(*option));
	return UNDECIDED;
}

/* An outer header from this node; where the configuration leaves bits of the source free the flow's hash fills them. */
static INLINE void *dsr_tunnel_header(context *ctx, const struct packet *packet, const union address *destination,
				      enum family outer, __u32 payload, __u8 protocol, __u32 hash)
{
	if (outer == FAMILY_IPV4)
		return tunnel_header(ctx, packet, &config.encap_source4, hash & config.encap_mask4, destination,
				     FAMILY_IPV4, payload, protocol);
	return tunnel_header(ctx, packet, &config.encap_source6, hash & config.encap_mask6, destination, FAMILY_IPV6,
			     payload, protocol);
}

static INLINE int dsr_ipip(context *ctx, const struct packet *packet, const union address *destination,
			   enum family inner, enum family outer, __u32 hash)
{
	__u32 bytes = network_header(outer);

	if (ctx_insert_headers(ctx, bytes, outer, INSERT_IP))
		return OUTCOME_NO_ROOM_DROPPED;
	if (!dsr_tunnel_header(ctx, packet, destination, outer, packet->length,
			       inner == FAMILY_IPV4 ? IPPROTO_IPIP : IPPROTO_IPV6, hash))
		return OUTCOME_TRUNCATED_DROPPED;
	return UNDECIDED;
}

/* Geneve's option behind its header: which service the packet was sent to. */
static INLINE void dsr_geneve_option(void *where, const struct packet *packet, enum family inner)
{
	struct dsr_geneve4 *option4 = where;
	struct dsr_geneve6 *option6 = where;

	option4->head.option_class = bpf_htons(DSR_GENEVE_CLASS);
	option4->head.type = DSR_GENEVE_TYPE;
	if (inner == FAMILY_IPV4) {
		option4->head.length = (sizeof(*option4) - sizeof(option4->head)) / 4;
		option4->address = packet->tuple.destination.words[3];
		option4->port = packet->tuple.destination_port;
		option4->pad = 0;
	} else {
		option6->head.length = (sizeof(*option6) - sizeof(option6->head)) / 4;
		option6->address = packet->tuple.destination;
		option6->port = packet->tuple.destination_port;
		option6->pad = 0;
	}
}

/* Wrap a translated packet into Geneve; `option` bytes of it are the option. */
static INLINE int dsr_geneve(context *ctx, const struct packet *packet, const union address *destination,
			     enum family family, __u32 hash, __u32 option)
{
	__u32 header = network_header(family);
	__u32 datagram = sizeof(struct udphdr) + sizeof(struct geneve) + option + ETH_HLEN;
	struct geneve *geneve;
	struct ethhdr *inner;
	struct udphdr *udp;

	if (ctx_insert_headers(ctx, header + datagram, family, INSERT_GENEVE))
		return OUTCOME_NO_ROOM_DROPPED;
	udp = dsr_tunnel_header(ctx, packet, destination, family, packet->length + datagram, IPPROTO_UDP, 0);
	if (!udp || (void *)udp + datagram > ctx_data_end(ctx))
		return OUTCOME_TRUNCATED_DROPPED;
	/* Spread like Cilium's, and in a range that nobody takes for a service's. */
	udp->source = bpf_htons(((hash >> 16) ^ (hash & 0xffff)) | 0x8000);
	udp->dest = bpf_htons(GENEVE_PORT);
	udp->len = bpf_htons(packet->length + datagram);
	/* None, over IPv6 as well (RFC 6935): the packet inside has its own. */
	udp->check = 0;
	geneve = (void *)(udp + 1);
	geneve->options = option / 4;
	geneve->flags = option ? GENEVE_CRITICAL : 0;
	geneve->protocol = bpf_htons(GENEVE_ETHERNET);
	geneve->vni = bpf_htonl(GENEVE_VNI_WORLD << 8);
	if (option)
		dsr_geneve_option(geneve + 1, packet, family);
	inner = (void *)(geneve + 1) + option;
	__builtin_memset(inner, 0, 2 * ETH_ALEN);
	inner->h_proto = family_protocol(family);
	return UNDECIDED;
}

/* Add to a translated packet what the dispatch adds: UNDECIDED, or why not. All but the Ethernet header. */
static INLINE int dsr_dispatch(context *ctx, const struct packet *packet, const struct backend *backend,
			       enum family inner, enum family outer, __u32 hash, bool tells)
{
	if (config.dsr_dispatch == DISPATCH_IPIP)
		return dsr_ipip(ctx, packet, &backend->address, inner, outer, hash);
	if (config.dsr_dispatch == DISPATCH_GENEVE) {
		if (tells)
			return dsr_geneve(ctx, packet, &backend->address, inner, hash,
					  inner == FAMILY_IPV4 ? sizeof(struct dsr_geneve4) :
								 sizeof(struct dsr_geneve6));
		return dsr_geneve(ctx, packet, &backend->address, inner, hash, 0);
	}
	if (!tells)
		return UNDECIDED;
	return inner == FAMILY_IPV4 ? dsr_option_insert4(ctx, packet) : dsr_option_insert6(ctx, packet);
}
