/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Copies of frames for `datapath capture`, before and after the load balancer had them.
 *
 * Only an instance of the program that is loaded with `capture.enabled` has any of this: it takes the other's place while
 * somebody captures. In all others the verifier removes the calls.
 */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"
#include "scratch.h"

const volatile struct capture capture SEC(".rodata.capture");

static INLINE bool capture_in(const union address *address)
{
	const volatile __u32 *wanted = (const volatile __u32 *)capture.address.words;
	const volatile __u32 *mask = (const volatile __u32 *)capture.mask.words;
	__u32 difference = 0;

	for (int i = 0; i < 4; i++)
		difference |= (address->words[i] & mask[i]) ^ wanted[i];
	return !difference;
}

/* Does the filter let a packet through: either end may be the one that is asked for. */
static INLINE bool capture_matches(const struct flow_key *tuple)
{
	if (capture.protocol && tuple->protocol != capture.protocol)
		return false;
	if (capture.port && tuple->source_port != capture.port && tuple->destination_port != capture.port)
		return false;
	return capture_in(&tuple->source) || capture_in(&tuple->destination);
}

static INLINE bool capture_filtered(void)
{
	return capture.protocol || capture.port || capture.mask.words[0] || capture.mask.words[3];
}

/* Whether the frame is wanted; what cannot be parsed is, unless a filter asks for something. */
static INLINE bool capture_wants(context *ctx, struct packet *packet)
{
	struct cursor cursor = { ctx_data(ctx), ctx_data_end(ctx) };
	__be16 protocol;
	int outcome;

	if (capture.device && capture.device != ctx_device(ctx))
		return false;
	if (!capture_filtered())
		return true;
	__builtin_memset(packet, 0, sizeof(*packet));
	packet->bytes = ctx_length(ctx);
	outcome = parse_ethernet(&cursor, &protocol);
	if (outcome == OUTCOME_VLAN_PASSED)
		outcome = parse_tags(&cursor, &protocol);
	if (outcome != UNDECIDED)
		return false;
	outcome = OUTCOME_NOT_IP_PASSED;
	if (protocol == bpf_htons(ETH_P_IP))
		outcome = parse_ip4(&cursor, packet);
	else if (protocol == bpf_htons(ETH_P_IPV6))
		outcome = parse_ip6(&cursor, packet);
	if (outcome != UNDECIDED)
		return false;
	/* Without ports, as of ICMP, these are 0. */
	parse_transport(&cursor, packet);
	return capture_matches(&packet->tuple);
}

static INLINE void capture_emit(context *ctx, struct scratch *s, __u8 phase, __u32 outcome)
{
	__u32 length = ctx_length(ctx);
	__u64 copied = minimum(length, capture.snaplen);
	struct capture_event event = {
		.time = bpf_ktime_get_ns(),
		.length = length,
		.captured = (__u32)copied,
		.device = ctx_device(ctx),
		.sent_by = s->device,
		.outcome = (__u16)outcome,
		.phase = phase,
	};

	bpf_perf_event_output(ctx, &capture_events, BPF_F_CURRENT_CPU | copied << 32, &event, sizeof(event));
}

/* Before the load balancer: is the frame one that is captured. */
SLOW int capture_before(context *ctx)
{
	struct scratch *s = scratch();

	if (!s || !capture_wants(ctx, &s->request))
		return 0;
	s->device = 0;
	capture_emit(ctx, s, CAPTURE_BEFORE, 0);
	return 1;
}

/* Afterwards, with what became of it. */
SLOW int capture_after(context *ctx, __u32 outcome)
{
	struct scratch *s = scratch();

	if (s)
		capture_emit(ctx, s, CAPTURE_AFTER, outcome);
	return 0;
}
