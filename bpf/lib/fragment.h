/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Fragments: only a datagram's first one has ports. They are remembered, so that the others follow it. */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"
#include "scratch.h"

/* Remember the packet, a first fragment. */
SLOW int fragment_remember(context *ctx)
{
	struct fragment fragment = {};
	struct scratch *s = scratch();
	struct fragment_key key;

	keep_argument(ctx);
	if (!s)
		return -1;
	fragment.source_port = s->packet.tuple.source_port;
	fragment.destination_port = s->packet.tuple.destination_port;
	fragment.protocol = s->packet.tuple.protocol;
	fragment_key_of(&s->packet, &key);
	return (int)bpf_map_update_elem(&fragments_v1, &key, &fragment, BPF_ANY);
}

/* Fill in what the packet, a following fragment, lacks: UNDECIDED, or FRAGMENT_PASSED where its first one was not seen. */
SLOW int fragment_recall(context *ctx)
{
	const struct fragment *fragment;
	struct scratch *s = scratch();
	struct fragment_key key;

	keep_argument(ctx);
	if (!s)
		return OUTCOME_FRAGMENT_PASSED;
	fragment_key_of(&s->packet, &key);
	fragment = bpf_map_lookup_elem(&fragments_v1, &key);
	if (!fragment)
		return OUTCOME_FRAGMENT_PASSED;
	s->packet.tuple.protocol = fragment->protocol;
	s->packet.tuple.source_port = fragment->source_port;
	s->packet.tuple.destination_port = fragment->destination_port;
	return UNDECIDED;
}
