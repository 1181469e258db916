/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Rates of endpoints. What an endpoint sends is marked with its number where it comes in, and given a departure time
 * (EDT) where it leaves the node: qdisc fq lets it go then, and nothing stands in a queue of ours. What it receives is
 * dropped beyond its rate and burst. These run at tc alone.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "../include/compiler.h"
#include "../include/counter.h"
#include "../maps/bandwidth.h"
#include "route.h"

#define SECOND 1000000000ULL

const volatile struct bandwidth_config bandwidth_config SEC(".rodata.config");

static INLINE void bandwidth_count(__u32 outcome, __u32 bytes)
{
	count(bpf_map_lookup_elem(&bandwidth_outcomes_v1, &outcome), bytes);
}

/* Other programs on the device have their turn. */
static INLINE int bandwidth_verdict(__u32 outcome)
{
	if (1ULL << outcome & BANDWIDTH_OUTCOMES_PASS)
		return TC_ACT_UNSPEC;
	return 1ULL << outcome & BANDWIDTH_OUTCOMES_FORWARD ? TC_ACT_REDIRECT : TC_ACT_SHOT;
}

static INLINE struct traffic *endpoint_traffic(const struct rate_key *key)
{
	struct traffic none = {}, *traffic = bpf_map_lookup_elem(&bandwidth_stats_v1, key);

	if (traffic)
		return traffic;
	bpf_map_update_elem(&bandwidth_stats_v1, key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&bandwidth_stats_v1, key);
}

/* Bytes are those on the wire, and one skb may stand for many packets (GSO). */
static INLINE void endpoint_count(const struct __sk_buff *skb, const struct rate_key *key, __u32 outcome)
{
	__u32 segments = (__u32)context_field(skb, gso_segs), bytes = (__u32)context_field(skb, wire_len);
	struct traffic *traffic = endpoint_traffic(key);

	if (!traffic)
		return;
	segments += !segments;
	if (1ULL << outcome & BANDWIDTH_OUTCOMES_PASS) {
		traffic->passed_packets += segments;
		traffic->passed_bytes += bytes;
	} else {
		traffic->dropped_packets += segments;
		traffic->dropped_bytes += bytes;
	}
}

static INLINE struct departure *departure_of(const struct rate_key *key)
{
	__u32 slot = 2 * (key->endpoint - ENDPOINT_FIRST) + key->direction;

	return bpf_map_lookup_elem(&departures_v1, &slot);
}

/* Nanoseconds that a packet takes at a rate. */
static INLINE __u64 duration(const struct __sk_buff *skb, const struct rate *rate)
{
	return context_field(skb, wire_len) * SECOND / rate->bytes_per_second;
}

/* When a packet leaves that would leave at `earliest` by itself: one `delay` after the last one. Nothing is noted, and
 * 0 the answer, where that is `ahead` of `now` or more.
 *
 * All CPUs share an endpoint's rate, hence the lock: without it, two of them would let packets go at the same time.
 */
static INLINE __u64 depart(struct departure *departure, __u64 now, __u64 earliest, __u64 delay, __u64 ahead)
{
	__u64 next;

	bpf_spin_lock(&departure->lock);
	next = departure->last + delay;
	if (next < earliest)
		next = earliest;
	if (next - now < ahead)
		departure->last = next;
	else
		next = 0;
	bpf_spin_unlock(&departure->lock);
	return next;
}

/* tc ingress of an endpoint's device on the host's side. */
static INLINE int bandwidth_mark(struct __sk_buff *skb)
{
	__u32 device = (__u32)context_field(skb, ifindex);
	__u32 *number = bpf_map_lookup_elem(&endpoints_v1, &device);

	if (!number)
		return BANDWIDTH_OUTCOME_UNKNOWN_DEVICE_PASSED;
	skb->queue_mapping = *number;
	if (bandwidth_config.route && route(skb))
		return BANDWIDTH_OUTCOME_ENDPOINT_ROUTED;
	return BANDWIDTH_OUTCOME_ENDPOINT_MARKED;
}

/* Number of the endpoint that sent a packet; 0 where none did. The mark has done its work then: the device may choose
 * the queue.
 */
static INLINE __u32 sender(struct __sk_buff *skb)
{
	__u32 number = (__u32)context_field(skb, queue_mapping);

	if (number >= ENDPOINT_FIRST) {
		skb->queue_mapping = 0;
		return number;
	}
	return context_field(skb, ingress_ifindex) ? 0 : ENDPOINT_HOST;
}

static INLINE int pace(struct __sk_buff *skb, const struct rate_key *key, const struct rate *rate)
{
	struct departure *departure = departure_of(key);
	__u64 now = bpf_ktime_get_ns(), earliest = skb->tstamp, ahead = rate->horizon, next;

	if (!departure)
		return BANDWIDTH_OUTCOME_NO_RATE_PASSED;
	/* TCP paces by itself (BBR does), and has a time for the packet already. */
	if (earliest < now)
		earliest = now;
	/* fq must not be the one who drops: the rate would have been used up for nothing. */
	if (ahead > bandwidth_config.horizon)
		ahead = bandwidth_config.horizon;
	next = depart(departure, now, earliest, duration(skb, rate), ahead);
	if (!next)
		return BANDWIDTH_OUTCOME_HORIZON_DROPPED;
	if (next == earliest)
		return BANDWIDTH_OUTCOME_SENT_AT_ONCE;
	skb->tstamp = next;
	return BANDWIDTH_OUTCOME_DEPARTURE_SET;
}

/* tc egress of a device that leads out of the node. */
static INLINE int bandwidth_egress(struct __sk_buff *skb)
{
	struct rate_key key = { .endpoint = sender(skb), .direction = RATE_EGRESS };
	struct rate *rate = key.endpoint ? bpf_map_lookup_elem(&rates_v1, &key) : NULL;
	int outcome = BANDWIDTH_OUTCOME_NO_RATE_PASSED;

	if (!rate)
		return outcome;
	if (rate->priority)
		skb->priority = rate->priority;
	if (rate->bytes_per_second)
		outcome = pace(skb, &key, rate);
	endpoint_count(skb, &key, outcome);
	return outcome;
}

/* A token bucket, told by time: a packet that would leave at once leaves the bucket full, and one that would leave
 * `burst` later finds it empty.
 */
static INLINE int police(struct __sk_buff *skb, const struct rate_key *key, const struct rate *rate)
{
	struct departure *departure = departure_of(key);
	__u64 now = bpf_ktime_get_ns(), delay = duration(skb, rate), full;

	if (!departure)
		return BANDWIDTH_OUTCOME_NO_RATE_PASSED;
	full = rate->burst * SECOND / rate->bytes_per_second;
	return depart(departure, now, now + delay, delay, full + 1) ? BANDWIDTH_OUTCOME_RECEIVED :
								      BANDWIDTH_OUTCOME_RATE_DROPPED;
}

/* tc egress of an endpoint's device on the host's side. */
static INLINE int bandwidth_ingress(struct __sk_buff *skb)
{
	__u32 device = (__u32)context_field(skb, ifindex);
	__u32 *number = bpf_map_lookup_elem(&endpoints_v1, &device);
	struct rate_key key = { .direction = RATE_INGRESS };
	struct rate *rate;
	int outcome;

	if (!number)
		return BANDWIDTH_OUTCOME_UNKNOWN_DEVICE_PASSED;
	key.endpoint = *number;
	rate = bpf_map_lookup_elem(&rates_v1, &key);
	if (!rate || !rate->bytes_per_second)
		return BANDWIDTH_OUTCOME_NO_RATE_PASSED;
	outcome = police(skb, &key, rate);
	endpoint_count(skb, &key, outcome);
	return outcome;
}
