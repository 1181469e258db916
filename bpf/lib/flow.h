/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Flows: what became of a client's packets, so that the next ones and the replies follow.
 *
 * A flow is two entries, one a direction, each keyed by what a packet shows on arrival. Either can be made from
 * the other (flow_mirror), so either can be evicted alone and is restored by a later packet of the other. Both
 * have the same stamp and state: they expire together.
 */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"
#include "config.h"
#include "scratch.h"

static INLINE __u32 flow_now(void)
{
	return (__u32)bpf_jiffies64();
}

static INLINE struct flow *flow_lookup(const struct flow_key *key)
{
	/* Two calls with a constant map each: the verifier can inline them only then. */
	if (key->protocol == IPPROTO_TCP)
		return bpf_map_lookup_elem(&flows_tcp_v1, key);
	barrier();
	return bpf_map_lookup_elem(&flows_any_v1, key);
}

/* The map of a flow, where speed does not count: chosen once, it halves what the verifier has to follow. */
static INLINE void *flow_map(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? (void *)&flows_tcp_v1 : (void *)&flows_any_v1;
}

/* Key of the other direction's entry. */
static INLINE void flow_mirror_key(const struct flow_key *key, const struct flow *flow, struct flow_key *mirror)
{
	mirror->source = flow->new_destination;
	mirror->destination = flow->new_source;
	mirror->source_port = flow->new_destination_port;
	mirror->destination_port = flow->new_source_port;
	mirror->protocol = key->protocol;
	mirror->direction = key->direction ^ 1;
	mirror->pad = 0;
}

/* Value of the other direction's entry, as if that had just been seen. */
static INLINE void flow_mirror(const struct flow_key *key, const struct flow *flow, __u32 now, struct flow *mirror)
{
	__builtin_memset(mirror, 0, sizeof(*mirror));
	mirror->new_source = key->destination;
	mirror->new_destination = key->source;
	mirror->new_source_port = key->destination_port;
	mirror->new_destination_port = key->source_port;
	mirror->backend_id = flow->backend_id;
	mirror->lut_id = flow->lut_id;
	mirror->last_seen = now;
	mirror->state = flow->state;
}

/* Do two entries belong together: does `flow` lead back to where `key` came from. */
static INLINE bool flow_leads_to(const struct flow *flow, const struct flow_key *key)
{
	return flow->new_destination_port == key->source_port && flow->new_source_port == key->destination_port &&
	       address_equal(&flow->new_destination, &key->source) &&
	       address_equal(&flow->new_source, &key->destination);
}

/* Do two entries of one key mean the same flow. */
static INLINE bool flow_same(const struct flow *a, const struct flow *b)
{
	return !((a->new_source_port ^ b->new_source_port) | (a->new_destination_port ^ b->new_destination_port) |
		 address_differ(&a->new_source, &b->new_source) |
		 address_differ(&a->new_destination, &b->new_destination));
}

/* Jiffies since the last stamp; negative where another CPU has just stamped it. */
static INLINE __s32 flow_idle(const struct flow *flow, __u32 now)
{
	return (__s32)(now - flow->last_seen);
}

/* How long a flow in a state is remembered without being seen (jiffies); without branches, as it is in a loop. */
static INLINE __u32 flow_timeout(const struct flow *flow)
{
	return config.any_timeout +
	       (flow->state & FLOW_ESTABLISHED) * (config.tcp_established_timeout - config.any_timeout) +
	       (flow->state / FLOW_CLOSING) * (config.tcp_closing_timeout - config.any_timeout);
}

/* Has nothing been seen of a flow, in either direction, for longer than its state allows: 1 or 0. */
static INLINE __u32 flow_expired(const struct flow *flow, __u32 now)
{
	return ((__u32)(flow_timeout(flow) + stamp_interval() - flow_idle(flow, now))) >> 31;
}

/* State that a TCP packet brings its flow to; FLOW_CLOSING after FIN in this direction needs the other's too. */
static INLINE __u8 flow_next_state(const struct flow_key *key, const struct flow *flow, const struct flow *other,
				   __u8 flags)
{
	if (flags & TCP_RST)
		return FLOW_CLOSING;
	if ((flags & TCP_FIN) && other && (other->tcp_flags_seen & TCP_FIN))
		return FLOW_CLOSING;
	/* Only what the client sends establishes: else a SYN with a forged source would, by its SYN/ACK. */
	if (flow->state == FLOW_NEW && key->direction == DIRECTION_REQUEST && (flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
		return FLOW_ESTABLISHED;
	return flow->state;
}

/* Bring both entries of the packet's flow up to date: stamp, state, and the other direction's where it was evicted.
 *
 * Returns 0 where the other direction's key meanwhile belongs to another flow.
 */
SLOW int flow_refresh(context *ctx)
{
	struct scratch *s = scratch();
	const struct flow_key *key;
	struct flow_key mirror_key;
	struct flow *flow, *other;
	struct flow mirror;
	__u32 now = flow_now();
	void *map;

	keep_argument(ctx);
	if (!s)
		return 0;
	key = &s->packet.tuple;
	map = flow_map(key->protocol);
	flow = bpf_map_lookup_elem(map, key);
	if (!flow)
		return 0;
	flow_mirror_key(key, flow, &mirror_key);
	other = bpf_map_lookup_elem(map, &mirror_key);
	if (other && !flow_leads_to(other, key))
		return 0;
	flow->last_seen = now;
	flow->tcp_flags_seen |= s->packet.tcp_flags;
	if (key->protocol == IPPROTO_TCP)
		flow->state = flow_next_state(key, flow, other, s->packet.tcp_flags);
	if (other) {
		other->last_seen = now;
		other->state = flow->state;
	} else {
		flow_mirror(key, flow, now, &mirror);
		bpf_map_update_elem(map, &mirror_key, &mirror, BPF_NOEXIST);
	}
	return 1;
}

/* Note that a packet of this flow was seen; false where the flow lost its source port to another. */
static INLINE bool flow_seen(context *ctx, const struct packet *packet, const struct flow *flow, __u32 now)
{
	/* An established flow's ordinary packet shows no new flag, and writes nothing. */
	if (likely(flow_idle(flow, now) <= (__s32)stamp_interval() && !(packet->tcp_flags & ~flow->tcp_flags_seen)))
		return true;
	return flow_refresh(ctx);
}
