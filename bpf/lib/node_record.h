/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* What is known of flows with direct server return: key is the packet as the backend gets it. */
#pragma once

#include "node_config.h"

static INLINE bool opens_connection(const struct packet *packet)
{
	return packet->tuple.protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static INLINE bool frontend_equal(const struct dsr_frontend *a, const struct dsr_frontend *b)
{
	return address_equal(&a->address, &b->address) && a->port == b->port;
}

/* Note what a packet was addressed to. A SYN to the same service leaves an established flow where no flood reaches it. */
static INLINE void record(const struct packet *packet, const struct dsr_frontend *frontend)
{
	struct dsr_frontend *known;

	if (packet->tuple.protocol == IPPROTO_TCP) {
		known = bpf_map_lookup_elem(&dsr_replies_v1, &packet->tuple);
		if (known && frontend_equal(known, frontend))
			return;
		if (known)
			bpf_map_delete_elem(&dsr_replies_v1, &packet->tuple);
	}
	known = bpf_map_lookup_elem(&dsr_openings_v1, &packet->tuple);
	/* A write takes a lock; UDP would do so with every packet. */
	if (!known || !frontend_equal(known, frontend))
		bpf_map_update_elem(&dsr_openings_v1, &packet->tuple, frontend, BPF_ANY);
}

/* A packet without an option that begins a flow is for the backend itself, and so is its answer. */
static INLINE int forget_direct(const struct packet *packet)
{
	bool known;

	if (packet->tuple.protocol == IPPROTO_TCP && !opens_connection(packet))
		return NODE_OUTCOME_REQUEST_PASSED;
	known = !bpf_map_delete_elem(&dsr_openings_v1, &packet->tuple);
	if (packet->tuple.protocol == IPPROTO_TCP && !bpf_map_delete_elem(&dsr_replies_v1, &packet->tuple))
		known = true;
	return known ? NODE_OUTCOME_DIRECT_FORGOTTEN : NODE_OUTCOME_REQUEST_PASSED;
}

/* The service that a reply belongs to; false where it is none. */
static INLINE bool recall(const struct flow_key *request, __u8 tcp_flags, struct dsr_frontend *frontend)
{
	bool tcp = request->protocol == IPPROTO_TCP;
	struct dsr_frontend *known = tcp ? bpf_map_lookup_elem(&dsr_replies_v1, request) : NULL;

	if (known) {
		*frontend = *known;
		return true;
	}
	known = bpf_map_lookup_elem(&dsr_openings_v1, request);
	if (!known)
		return false;
	*frontend = *known;
	/* The node takes part in the connection: it is real. */
	if (tcp && !(tcp_flags & (TCP_SYN | TCP_RST))) {
		bpf_map_update_elem(&dsr_replies_v1, request, frontend, BPF_ANY);
		bpf_map_delete_elem(&dsr_openings_v1, request);
	}
	return true;
}
