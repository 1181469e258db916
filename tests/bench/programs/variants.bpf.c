// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0)
/* Single operations that the load balancer could do in another way, each alone behind a parser: what would be gained.
 *
 * The lookups of next hops are for a backend, as if the load balancer had chosen it; what the frame says of its
 * destination counts for nothing.
 */
#include "../../../bpf/include/ctx_xdp.h"
#include "../../../bpf/include/packet.h"
#include "../../../bpf/lib/config.h"

#define FLOWS 524288 /* as the load balancer's tables */

#include "flow_sets.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct next_hop {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__u32 device;
};

/* The next hop of a backend, looked up once: what an array beside the backends' would hold. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__type(key, struct flow_key);
	__type(value, struct flow);
} common_lru SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__type(key, struct flow_key);
	__type(value, struct flow);
} own_lru SEC(".maps");

/* Written from user space: a backend of each family. */
const volatile struct {
	union address backend4;
	union address backend6;
} target SEC(".rodata.target");

/* Where what was found is copied to. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[SET_WORDS]);
} copies SEC(".maps");

static INLINE bool parse(struct xdp_md *ctx, struct packet *packet)
{
	struct cursor cursor = { ctx_data(ctx), ctx_data_end(ctx) };
	__be16 protocol;
	int outcome;

	packet->bytes = ctx_length(ctx);
	if (parse_ethernet(&cursor, &protocol) != UNDECIDED)
		return false;
	packet->family = protocol == bpf_htons(ETH_P_IP) ? FAMILY_IPV4 : FAMILY_IPV6;
	outcome = packet->family == FAMILY_IPV4 ? parse_ip4(&cursor, packet) : parse_ip6(&cursor, packet);
	return outcome == UNDECIDED && parse_transport(&cursor, packet) == UNDECIDED;
}

static INLINE int ask(struct xdp_md *ctx, __u32 flags)
{
	struct bpf_fib_lookup fib = {};
	struct packet packet = {};

	if (!parse(ctx, &packet))
		return XDP_ABORTED;
	fib.family = packet.family;
	fib.l4_protocol = packet.tuple.protocol;
	fib.sport = packet.tuple.source_port;
	fib.dport = packet.tuple.destination_port;
	fib.tot_len = packet.length;
	fib.ifindex = ctx_device(ctx);
	if (packet.family == FAMILY_IPV4) {
		fib.ipv4_src = packet.tuple.source.words[3];
		fib.ipv4_dst = target.backend4.words[3];
	} else {
		__builtin_memcpy(fib.ipv6_src, &packet.tuple.source, sizeof(fib.ipv6_src));
		for (int i = 0; i < 4; i++)
			fib.ipv6_dst[i] = target.backend6.words[i];
	}
	return bpf_fib_lookup(ctx, &fib, sizeof(fib), flags) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp")
int nothing(struct xdp_md *ctx)
{
	struct packet packet = {};

	return parse(ctx, &packet) ? XDP_TX : XDP_ABORTED;
}

SEC("xdp")
int fib(struct xdp_md *ctx)
{
	return ask(ctx, 0);
}

/* Without policy rules. */
SEC("xdp")
int fib_direct(struct xdp_md *ctx)
{
	return ask(ctx, BPF_FIB_LOOKUP_DIRECT);
}

/* The route alone. */
SEC("xdp")
int fib_no_neighbour(struct xdp_md *ctx)
{
	return ask(ctx, BPF_FIB_LOOKUP_DIRECT | BPF_FIB_LOOKUP_SKIP_NEIGH);
}

SEC("xdp")
int remembered(struct xdp_md *ctx)
{
	struct ethhdr *ethernet;
	struct packet packet = {};
	const struct next_hop *hop;
	__u32 backend;

	if (!parse(ctx, &packet))
		return XDP_ABORTED;
	backend = packet.tuple.destination_port;
	hop = bpf_map_lookup_elem(&next_hops, &backend);
	ethernet = ctx_data(ctx);
	if (!hop || (void *)(ethernet + 1) > ctx_data_end(ctx))
		return XDP_ABORTED;
	__builtin_memcpy(ethernet->h_dest, hop->destination, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, hop->source, ETH_ALEN);
	return XDP_TX;
}

SEC("xdp")
int enter_common(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct flow flow = {};

	if (!parse(ctx, &packet))
		return XDP_ABORTED;
	bpf_map_update_elem(&common_lru, &packet.tuple, &flow, BPF_ANY);
	return XDP_TX;
}

SEC("xdp")
int enter_own(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct flow flow = {};

	if (!parse(ctx, &packet))
		return XDP_ABORTED;
	bpf_map_update_elem(&own_lru, &packet.tuple, &flow, BPF_ANY);
	return XDP_TX;
}

/* The key of the other direction, as if there were a backend for each client: no two flows have the same. */
static INLINE void reply_key(const struct flow_key *request, struct flow_key *reply)
{
	*reply = *request;
	reply->source = request->destination;
	reply->destination = request->source;
	reply->source_port = request->destination_port;
	reply->destination_port = request->source_port;
	reply->direction = DIRECTION_REPLY;
}

static INLINE __u64 *copy(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&copies, &zero);
}

SEC("xdp")
int find_common(struct xdp_md *ctx)
{
	struct packet packet = {};
	const struct flow *flow;
	__u64 *found = copy();

	if (!found || !parse(ctx, &packet))
		return XDP_ABORTED;
	flow = bpf_map_lookup_elem(&common_lru, &packet.tuple);
	/* What the load balancer reads of it in any case. */
	if (flow)
		*found = flow->last_seen + flow->new_source.words[3] + flow->new_destination.words[3];
	return XDP_TX;
}

SEC("xdp")
int find_set(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct flow_set *set;
	__u64 *found = copy();
	__u64 hash;

	if (!found || !parse(ctx, &packet))
		return XDP_ABORTED;
	hash = set_hash(&packet.tuple);
	set = set_of(hash);
	if (set)
		set_find(set, hash, &packet.tuple, found);
	return XDP_TX;
}

SEC("xdp")
int find_set_locked(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct flow_set *set;
	__u64 *found = copy();
	__u64 hash;

	if (!found || !parse(ctx, &packet))
		return XDP_ABORTED;
	hash = set_hash(&packet.tuple);
	set = set_of(hash);
	if (!set)
		return XDP_ABORTED;
	bpf_spin_lock(&set->lock);
	set_find_in(set, hash, (const __u64 *)&packet.tuple, found);
	bpf_spin_unlock(&set->lock);
	return XDP_TX;
}

SEC("xdp")
int open_common(struct xdp_md *ctx)
{
	struct packet packet = {};
	struct flow_key reply;
	struct flow flow = {};

	if (!parse(ctx, &packet))
		return XDP_ABORTED;
	if (bpf_map_lookup_elem(&common_lru, &packet.tuple))
		return XDP_TX;
	flow.last_seen = bpf_jiffies64();
	reply_key(&packet.tuple, &reply);
	if (!bpf_map_lookup_elem(&common_lru, &reply))
		bpf_map_update_elem(&common_lru, &reply, &flow, BPF_NOEXIST);
	bpf_map_update_elem(&common_lru, &packet.tuple, &flow, BPF_ANY);
	return XDP_TX;
}

SEC("xdp")
int open_set(struct xdp_md *ctx)
{
	struct flow_set *set, *reply_set;
	struct packet packet = {};
	struct flow_key reply;
	__u64 hash, reply_hash;
	__u64 *found = copy();
	__u32 now;

	if (!found || !parse(ctx, &packet))
		return XDP_ABORTED;
	hash = set_hash(&packet.tuple);
	set = set_of(hash);
	if (!set)
		return XDP_ABORTED;
	if (set_find(set, hash, &packet.tuple, found))
		return XDP_TX;
	now = bpf_jiffies64();
	reply_key(&packet.tuple, &reply);
	reply_hash = set_hash(&reply);
	reply_set = set_of(reply_hash);
	if (!reply_set)
		return XDP_ABORTED;
	if (!set_find(reply_set, reply_hash, &reply, found))
		set_enter(reply_set, reply_hash, &reply, now, now);
	set_enter(set, hash, &packet.tuple, now, now);
	return XDP_TX;
}
