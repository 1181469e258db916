/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* A set-associative table of flows in an array: what the kernel's LRU hash could be replaced with. Not in use; what it
 * gives is in docs/performance.md ("A set-associative table of flows").
 *
 * The hash of a key chooses a set, and the entry that makes room is one of that set: a free one, else one of no
 * established flow, else the oldest. Who writes holds the set's lock. Who reads copies an entry and believes it if its
 * checksum is right, which needs no order of memory accesses.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "../../../bpf/include/compiler.h"
#include "../../../bpf/maps/layout.h"

#define SET_WAYS 7	/* with what changes of them one cache line, and one for each */
#define SET_PLACES 2	/* for each entry: else too many sets are full long before the table is */
#define SET_COUNT (FLOWS * SET_PLACES / SET_WAYS)
#define SET_KEY_WORDS 5 /* of 8 bytes: struct flow_key */
#define SET_WORDS 7	/* with two for what a packet becomes; the rest can be had from the backend */

/* What changes of an entry with its packets. */
struct set_slot {
	__u32 last_seen;
	__u32 tag; /* upper 24 bits: of the hash; 0 where free */
};
#define SET_TAG 0xffffff00U
#define SET_USED 0x80
#define SET_ESTABLISHED 0x01

struct set_entry {
	__u64 check;
	__u64 words[SET_WORDS];
};

struct flow_set {
	struct bpf_spin_lock lock;
	__u32 pad;
	struct set_slot slots[SET_WAYS];
	struct set_entry entries[SET_WAYS];
};

/* Memory that could be mapped is aligned to pages, and so are cache lines to what is in them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SET_COUNT);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct flow_set);
} flow_sets SEC(".maps");

/* NH (RFC 4418, 5.2.2); for use, its seeds would have to be secret. */
static INLINE __u64 set_hash(const struct flow_key *key)
{
	static const __u32 seeds[] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
		0x9b05688c, 0x1f83d9ab, 0x5be0cd19, 0xcbbb9d5d, 0x629a292a,
	};
	const __u32 *words = (const __u32 *)key;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 2 * SET_KEY_WORDS; i += 2)
		sum += (__u64)(words[i] + seeds[i]) * (__u64)(words[i + 1] + seeds[i + 1]);
	sum ^= sum >> 32;
	sum *= 0x9e3779b97f4a7c15ULL;
	return sum ^ sum >> 29;
}

static INLINE struct flow_set *set_of(__u64 hash)
{
	__u32 index = (hash >> 32) * SET_COUNT >> 32;

	return bpf_map_lookup_elem(&flow_sets, &index);
}

/* The way where an entry is if that was free: looked at first. */
static INLINE __u32 set_preferred(__u64 hash)
{
	return (hash & 0xffff) * SET_WAYS >> 16;
}

static INLINE __u32 set_tag(__u64 hash)
{
	return ((__u32)hash & SET_TAG) | SET_USED;
}

static INLINE __u64 set_check(const __u64 *words)
{
	static const __u64 multipliers[SET_WORDS] = {
		0x6a09e667f3bcc909ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
		0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL,
	};
	__u64 sum = 1;

#pragma unroll
	for (int i = 0; i < SET_WORDS; i++)
		sum += words[i] * multipliers[i];
	return sum;
}

/* Copy an entry: false where it is not the key's, or was written meanwhile. */
static INLINE bool set_read(const struct set_entry *entry, const __u64 *key, __u64 *copy)
{
	const volatile __u64 *words = entry->words;
	__u64 differs = 0;

#pragma unroll
	for (int i = 0; i < SET_WORDS; i++)
		copy[i] = words[i];
#pragma unroll
	for (int i = 0; i < SET_KEY_WORDS; i++)
		differs |= copy[i] ^ key[i];
	return !differs && set_check(copy) == *(const volatile __u64 *)&entry->check;
}

static INLINE bool set_read_way(const struct flow_set *set, __u32 way, __u64 hash, const __u64 *key, __u64 *copy)
{
	return !((set->slots[way].tag ^ set_tag(hash)) & SET_TAG) && set_read(&set->entries[way], key, copy);
}

static INLINE bool set_find_in(const struct flow_set *set, __u64 hash, const __u64 *key, __u64 *copy)
{
	for (__u32 way = 0; way < SET_WAYS; way++)
		if (set_read_way(set, way, hash, key, copy))
			return true;
	return false;
}

static INLINE bool set_find(const struct flow_set *set, __u64 hash, const struct flow_key *key, __u64 *copy)
{
	__u32 way = set_preferred(hash);

	if (way >= SET_WAYS)
		return false;
	/* As the branch is foretold, the processor waits for slot and entry at the same time. */
	if (likely(set_read_way(set, way, hash, (const __u64 *)key, copy)))
		return true;
	return set_find_in(set, hash, (const __u64 *)key, copy);
}

/* How little an entry is worth. */
static INLINE __u32 set_rank(const struct set_slot *slot, __u32 tag, __u32 now)
{
	__u32 rank = (now - slot->last_seen) >> 2 & 0x1fffffff;

	if (!(slot->tag & SET_ESTABLISHED))
		rank |= 0x20000000;
	if (!slot->tag)
		rank |= 0x40000000;
	return (slot->tag ^ tag) & SET_TAG ? rank : rank | 0x80000000;
}

static INLINE void set_enter(struct flow_set *set, __u64 hash, const struct flow_key *key, __u64 value, __u32 now)
{
	const __u64 *words = (const __u64 *)key;
	__u32 tag = set_tag(hash), victim = set_preferred(hash), worst = 0;
	struct set_entry entry;

#pragma unroll
	for (int i = 0; i < SET_KEY_WORDS; i++)
		entry.words[i] = words[i];
	entry.words[SET_KEY_WORDS] = value;
	entry.words[SET_KEY_WORDS + 1] = value;
	entry.check = set_check(entry.words);
	bpf_spin_lock(&set->lock);
#pragma unroll
	for (__u32 way = 0; way < SET_WAYS; way++) {
		__u32 rank = set_rank(&set->slots[way], tag, now);

		if (rank > worst) {
			worst = rank;
			victim = way;
		}
	}
	if (victim < SET_WAYS) {
		volatile __u64 *to = (volatile __u64 *)&set->entries[victim];
		const __u64 *from = (const __u64 *)&entry;

		set->slots[victim].tag = tag;
		set->slots[victim].last_seen = now;
#pragma unroll
		for (int i = 0; i < (int)(sizeof(entry) / sizeof(*from)); i++)
			to[i] = from[i];
	}
	bpf_spin_unlock(&set->lock);
}
