/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Choice of a backend for a new flow. */
#pragma once

#include "../include/jhash.h"
#include "../include/packet.h"
#include "../maps/lb.h"
#include "config.h"

/* Cilium's hash of a packet for its Maglev slot. The destination address is left out on purpose, so that
 * VIPs with the same backends agree.
 */
static INLINE __u32 slot_hash(const struct flow_key *tuple, enum family family)
{
	const __be32 *source = tuple->source.words;
	__u32 ports = jhash_word((__be32)(tuple->source_port | (__u32)tuple->destination_port << 16));
	struct jhash h;

	if (family == FAMILY_IPV4)
		return jhash_3words(jhash_word(source[3]), ports, tuple->protocol, config.hash_seed4);
	h.a = jhash_word(source[0]);
	h.b = jhash_word(source[1]);
	h.c = jhash_word(source[2]);
	jhash_mix(&h);
	h.a += jhash_word(source[3]);
	h.b += ports;
	h.c += tuple->protocol;
	jhash_mix(&h);
	h.a += config.hash_seed6;
	jhash_final(&h);
	return h.c;
}

static INLINE const struct backend *backend_lookup(__u32 id)
{
	return bpf_map_lookup_elem(&backends_v1, &id);
}

/* A slot of a table of one value, of a map of maps that `service` indexes; NULL where there is none. */
static INLINE const __u32 *table_slot(void *tables, const struct service *service, __u32 slot, __u32 slots)
{
	__u32 lut_id = service->lut_id;
	__u32 zero = 0;
	void *table = bpf_map_lookup_elem(tables, &lut_id);
	const __u32 *values;

	if (!table)
		return NULL;
	values = bpf_map_lookup_elem(table, &zero);
	/* Kernels before 6.8 learn nothing from the modulo. */
	opaque(slot);
	if (!values || slot >= slots)
		return NULL;
	return values + slot;
}

/* A slot of a service's table: a backend's id or 0 for nobody, and perhaps SLOT_MOVED. */
static INLINE __u32 service_slot(const struct service *service, __u32 slot)
{
	const __u32 *value = table_slot(&luts_v1, service, slot, config.maglev_table_size);

	return value ? *value : 0;
}

/* The backend of an id, unless that belongs to another service by now. */
static INLINE const struct backend *backend_of(const struct service *service, __u32 id)
{
	const struct backend *backend = backend_lookup(id);

	return backend && backend->protocol && backend->lut_id == service->lut_id ? backend : NULL;
}

/* The backend for a new flow and its id, or NULL where the service has nobody. */
static INLINE const struct backend *backend_select(const struct service *service, __u32 hash, __u32 *id)
{
	if (!service->backend_count)
		return NULL;
	if (service->algorithm == ALGORITHM_RANDOM)
		hash = bpf_get_prandom_u32();
	*id = service_slot(service, hash % config.maglev_table_size) & ~SLOT_MOVED;
	return *id ? backend_of(service, *id) : NULL;
}
