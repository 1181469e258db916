// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Yardsticks: what every load balancer has to do at least, on this machine and in the same minute. IPv4 only. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INLINE __attribute__((always_inline)) inline
#define RING_SIZE 65521
#define REALS 4096

char _license[] SEC("license") = "Dual BSD/GPL";

struct vip_key {
	__be32 address;
	__be16 port;
	__u8 protocol;
	__u8 pad;
};

struct vip {
	__u8 router[ETH_ALEN];
	__u16 pad;
};

/* Pointers, as a packed structure of all headers would be read byte by byte. */
struct headers {
	struct ethhdr *ethernet;
	struct iphdr *ip;
	__be16 *ports; /* source and destination: at the same place in TCP and UDP */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, struct vip_key);
	__type(value, struct vip);
} vips SEC(".maps");

/* Slot -> number of a real server. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RING_SIZE);
	__type(key, __u32);
	__type(value, __u32);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REALS);
	__type(key, __u32);
	__type(value, __be32);
} reals SEC(".maps");

/* The VIP that an unfragmented TCP or UDP packet is for; NULL for all others. */
static INLINE struct vip *parse(struct xdp_md *ctx, struct headers *headers, struct vip_key *key)
{
	void *data = (void *)(long)ctx->data;
	struct iphdr *ip = data + ETH_HLEN;

	headers->ethernet = data;
	headers->ip = ip;
	headers->ports = (__be16 *)(ip + 1);
	if ((void *)(headers->ports + 2) > (void *)(long)ctx->data_end)
		return NULL;
	if (headers->ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->version != 4 || ip->ihl != 5)
		return NULL;
	if (ip->frag_off & bpf_htons(0x3fff))
		return NULL;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
		return NULL;
	key->address = ip->daddr;
	key->port = headers->ports[1];
	key->protocol = ip->protocol;
	return bpf_map_lookup_elem(&vips, key);
}

/* The wrapper's own cost. */
SEC("xdp")
int tx(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_TX;
}

/* What moving the frame's head costs: here, and once more where the wrapper moves it back. */
SEC("xdp")
int shift(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -(int)sizeof(struct iphdr)) ? XDP_ABORTED : XDP_TX;
}

/* Parse, look up, send on to another MAC address. */
SEC("xdp")
int min(struct xdp_md *ctx)
{
	struct vip_key key = {};
	struct headers headers;
	struct vip *vip = parse(ctx, &headers, &key);

	if (!vip)
		return XDP_PASS;
	__builtin_memcpy(headers.ethernet->h_source, headers.ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(headers.ethernet->h_dest, vip->router, ETH_ALEN);
	return XDP_TX;
}

static INLINE __be32 *choose_real(__be32 source, const struct vip_key *key, __be16 port)
{
	__u64 hash = (__u64)source << 32 | (__u32)port << 16 | key->port;
	__u32 slot, *number;

	hash ^= key->address;
	hash *= 0xff51afd7ed558ccdULL;
	hash ^= hash >> 33;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	hash ^= hash >> 33;
	slot = (hash & 0xffffffff) * RING_SIZE >> 32;
	number = bpf_map_lookup_elem(&ring, &slot);
	return number ? bpf_map_lookup_elem(&reals, number) : NULL;
}

static INLINE int encapsulate(struct xdp_md *ctx, const struct vip *vip, __be16 inner, __be32 source,
			      __be32 destination)
{
	__be16 length = bpf_htons(bpf_ntohs(inner) + sizeof(struct iphdr));
	struct ethhdr *ethernet, *old;
	struct iphdr *ip;
	__u64 sum;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*ip)))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	ip = (struct iphdr *)(ethernet + 1);
	old = (void *)ethernet + sizeof(*ip);
	if ((void *)(old + 1) > (void *)(long)ctx->data_end || (void *)(ip + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(ethernet->h_source, old->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, vip->router, ETH_ALEN);
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	*(__be16 *)ip = bpf_htons(0x4500);
	ip->tot_len = length;
	ip->id = 0;
	ip->frag_off = 0;
	ip->ttl = 64;
	ip->protocol = IPPROTO_IPIP;
	ip->saddr = source;
	ip->daddr = destination;
	sum = bpf_htons(0x4500) + bpf_htons(64 << 8 | IPPROTO_IPIP) + length + source + (__u64)destination;
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = (__u16)~((sum & 0xffff) + (sum >> 16));
	return XDP_TX;
}

/* A stateless load balancer: VIP, hash, ring, real server, IP in IP. */
SEC("xdp")
int slb(struct xdp_md *ctx)
{
	struct vip_key key = {};
	struct headers headers;
	struct vip *vip = parse(ctx, &headers, &key);
	__be32 *real, source;

	if (!vip)
		return XDP_PASS;
	/* Of a prefix, so that the queues of a real server share the work. */
	source = bpf_htonl(0xac100000) | (__u32)headers.ports[0] << 16;
	real = choose_real(headers.ip->saddr, &key, headers.ports[0]);
	return real ? encapsulate(ctx, vip, headers.ip->tot_len, source, *real) : XDP_DROP;
}
