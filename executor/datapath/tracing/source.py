"""The C source that bcc compiles on the node, for the running kernel.

Three tracepoints, whose fields bcc reads from the kernel's own description of them, so that one source does for all
kernels. Counts live in maps of fixed size: what it costs depends on neither the number of flows nor the time.
"""

from __future__ import annotations

DROPS = "skb:kfree_skb"
RETRANSMITS = "tcp:tcp_retransmit_skb"
ROUND_TRIPS = "tcp:tcp_probe"
TRACEPOINTS = (DROPS, RETRANSMITS, ROUND_TRIPS)

OTHER = 0
"""Index of the row for connections that are no service's."""

SOURCE = r"""
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/socket.h>
#include <linux/skbuff.h>

struct drop_key {
    u64 location;
    u32 reason;
    u32 protocol;
};

/* Addresses of both families are 16 bytes, IPv4 as ::ffff:a.b.c.d. */
struct endpoint {
    u8 address[16];
    u16 port;
    u16 padding;
};

struct tcp_row {
    u64 retransmits;
    u64 samples;
    u64 sum_us;
    u32 min_us;
    u32 max_us;
};

BPF_HASH(drops, struct drop_key, u64, 4096);
BPF_HASH(endpoints, struct endpoint, u32, ENDPOINTS);
BPF_PERCPU_ARRAY(rows, struct tcp_row, ROWS);

static __always_inline struct tcp_row *row_of(struct endpoint *local, struct endpoint *remote)
{
    u32 other = 0;
    u32 *row = endpoints.lookup(local);

    if (!row)
        row = endpoints.lookup(remote);
    return rows.lookup(row ? row : &other);
}

/* From the bytes of a sockaddr; the family is its first field. */
static __always_inline void from_sockaddr(struct endpoint *to, const u8 *bytes, u16 port)
{
    u16 family;

    __builtin_memcpy(&family, bytes, sizeof(family));
    if (family == AF_INET) {
        to->address[10] = to->address[11] = 0xff;
        __builtin_memcpy(to->address + 12, bytes + 4, 4);
    } else {
        __builtin_memcpy(to->address, bytes + 8, 16);
    }
    to->port = port;
}

TRACEPOINT_PROBE(skb, kfree_skb)
{
    struct drop_key key = {};

    key.location = (u64)args->location;
    key.protocol = args->protocol;
#ifdef HAS_REASON
    key.reason = args->reason;
#endif
    drops.atomic_increment(key);
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_retransmit_skb)
{
    struct endpoint local = {}, remote = {};
    struct tcp_row *row;

    __builtin_memcpy(local.address, args->saddr_v6, 16);
    __builtin_memcpy(remote.address, args->daddr_v6, 16);
    local.port = args->sport;
    remote.port = args->dport;
    row = row_of(&local, &remote);
    if (row)
        row->retransmits++;
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_probe)
{
    struct endpoint local = {}, remote = {};
    u8 bytes[28];
    u32 srtt = args->srtt;
    struct tcp_row *row;

    __builtin_memcpy(bytes, args->saddr, sizeof(bytes));
    from_sockaddr(&local, bytes, args->sport);
    __builtin_memcpy(bytes, args->daddr, sizeof(bytes));
    from_sockaddr(&remote, bytes, args->dport);
    row = row_of(&local, &remote);
    if (!row || !srtt)
        return 0;
    row->samples++;
    row->sum_us += srtt;
    if (!row->min_us || srtt < row->min_us)
        row->min_us = srtt;
    if (srtt > row->max_us)
        row->max_us = srtt;
    return 0;
}
"""
