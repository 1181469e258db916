/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Choice of a backend where replies do not come back through this node (direct server return).
 *
 * A packet's hash names a slot of the service's table, and the slot names the backend: on every load balancer, before
 * and after its restart, without any state. Only where a slot changed owner (SLOT_MOVED) does the table not tell:
 * connections that begin take the new owner, others had the previous one. Those flows, and only those, are recorded.
 * With algorithm random no table tells, so every flow is.
 */
#pragma once

#include "backend.h"
#include "flow.h"
#include "service.h"

/* Does a packet open a TCP connection: 1 or 0, without a branch. */
static INLINE __u32 packet_opens(const struct packet *packet)
{
	return (packet->tcp_flags & TCP_SYN) / TCP_SYN & ~(packet->tcp_flags / TCP_ACK);
}

/* Can a record decide about a packet: not where its backend is gone, or takes no new connections and this is one. */
static INLINE bool choice_usable(const struct choice *choice, const struct service *service, __u32 opens, __u32 now,
				 __u32 timeout)
{
	const struct backend *backend;

	if (choice->lut_id != service->lut_id || now - choice->last_seen > timeout || (opens && choice->closing))
		return false;
	backend = backend_of(service, choice->backend_id);
	return backend && !(opens && backend->state != BACKEND_ACTIVE);
}

static INLINE void choice_seen(struct choice *choice, const struct packet *packet, __u32 now)
{
	if (now - choice->last_seen > stamp_interval())
		choice->last_seen = now;
	if (unlikely(packet->tcp_flags & (TCP_FIN | TCP_RST)))
		choice->closing = 1;
}

/* Who has a slot in the eyes of a packet that nothing is recorded about: the current owner, or the previous one. */
static INLINE __u32 choice_owner(const struct packet *packet, const struct service *service, __u32 slot, __u32 entry,
				 __u32 opens)
{
	__u32 window = packet->tuple.protocol == IPPROTO_TCP ? config.history_window_tcp : config.history_window_any;
	__u32 current = entry & ~SLOT_MOVED;
	const __u32 *history, *changed;

	if (!(entry & SLOT_MOVED) || opens)
		return current;
	history = table_slot(&histories_v1, service, slot, config.maglev_table_size);
	changed = table_slot(&luts_v1, service, config.maglev_table_size, config.maglev_table_size + 1);
	/* A flow that is older and alive shows itself within the window, and is recorded. One that shows up later is
	 * younger: another load balancer, which is lost, began it.
	 */
	if (!history || !changed || (__u32)(bpf_ktime_get_ns() / 1000000000) - *changed >= window)
		return current;
	return backend_of(service, *history) ? *history : current;
}

/* Enter what became of a packet: apart where a single forged one can do so. */
static INLINE void choice_record(const struct flow_key *key, const struct choice *made, bool established)
{
	if (established)
		bpf_map_update_elem(&choices_tcp_v1, key, made, BPF_ANY);
	else
		bpf_map_update_elem(&choices_any_v1, key, made, BPF_ANY);
}

/* What is recorded about a packet's flow, if that can decide. A connection that begins anew ends an old record. */
static INLINE struct choice *choice_known(const struct packet *packet, const struct service *service, __u32 opens,
					  __u32 now, bool *established)
{
	const struct flow_key *key = &packet->tuple;
	struct choice *choice;

	if (key->protocol == IPPROTO_TCP) {
		choice = bpf_map_lookup_elem(&choices_tcp_v1, key);
		*established = true;
		if (choice && choice_usable(choice, service, opens, now, config.tcp_established_timeout))
			return choice;
		if (choice && opens) {
			bpf_map_delete_elem(&choices_tcp_v1, key);
			return NULL;
		}
	}
	*established = false;
	choice = bpf_map_lookup_elem(&choices_any_v1, key);
	return choice && choice_usable(choice, service, opens, now, config.any_timeout) ? choice : NULL;
}

/* The backend of a packet whose slot, which holds `entry`, does not tell; 0 where there is nobody. Of a `quoted` packet,
 * which is only spoken of, nothing is recorded.
 */
SLOW int choice_recorded(context *ctx, __u32 slot, __u32 entry, __u32 quoted)
{
	const struct service *service;
	struct scratch *s = scratch();
	const struct packet *packet;
	struct choice *choice;
	struct choice made = {};
	__u32 opens, now;
	bool established, tcp;

	keep_argument(ctx);
	if (!s)
		return 0;
	packet = quoted ? &s->request : &s->packet;
	service = service_lookup(&packet->tuple);
	if (!service)
		return 0;
	opens = packet_opens(packet);
	now = flow_now();
	tcp = packet->tuple.protocol == IPPROTO_TCP;
	choice = choice_known(packet, service, opens, now, &established);
	if (quoted)
		return choice ? choice->backend_id : choice_owner(packet, service, slot, entry, opens);
	made.lut_id = service->lut_id;
	made.last_seen = now;
	if (choice) {
		choice_seen(choice, packet, now);
		if (established || !tcp || opens)
			return choice->backend_id;
		/* The client went on after its SYN: that record has done its duty. */
		made.backend_id = choice->backend_id;
		made.closing = choice->closing;
		bpf_map_delete_elem(&choices_any_v1, &packet->tuple);
	} else {
		if (service->algorithm == ALGORITHM_RANDOM && (opens || !tcp))
			entry = service_slot(service, bpf_get_prandom_u32() % config.maglev_table_size) & ~SLOT_MOVED;
		made.backend_id = choice_owner(packet, service, slot, entry, opens);
		made.closing = !!(packet->tcp_flags & (TCP_FIN | TCP_RST));
		if (!made.backend_id)
			return 0;
	}
	choice_record(&packet->tuple, &made, tcp && !opens);
	return made.backend_id;
}

/* The backend of a packet to a service with direct server return and its id, or NULL where there is nobody. */
static INLINE const struct backend *choice_backend(context *ctx, const struct service *service, __u32 hash,
						   bool quoted, __u32 *id)
{
	__u32 slot = hash % config.maglev_table_size;
	__u32 entry = service_slot(service, slot);

	if (unlikely(entry & SLOT_MOVED || service->algorithm == ALGORITHM_RANDOM))
		entry = choice_recorded(ctx, slot, entry, quoted);
	*id = entry;
	return entry ? backend_of(service, entry) : NULL;
}
