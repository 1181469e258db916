/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* What is known of the packet at hand, in a map value and not on the stack.
 *
 * The verifier does not follow what is in a map value, and verifies functions that take it from there (SLOW) once and
 * by themselves. Paths therefore do not multiply with each other: without that the program would be too complex.
 * A CPU finishes a packet before it takes up another, so one value a CPU is enough.
 */
#pragma once

#include "../include/packet.h"
#include "../maps/lb.h"

/* A question: the way to `destination` for a packet of `length` bytes. */
struct route {
	union address destination;
	__u32 index; /* where the answer is remembered */
	__u16 length;
	__u16 mtu;   /* out: of the next hop, where the packet is too big for it */
	__u8 family; /* enum family, of the destination */
	__u8 pad[3];
};

struct scratch {
	struct packet packet;
	struct packet quote;   /* that an ICMP error carries */
	struct packet request; /* that the quoted packet answers */
	struct flow_key quoted; /* that the quoted packet becomes */
	union address origin;  /* of such an error: the load balancer that it came to first */
	union address peer;    /* that it goes to */
	struct flow flow;      /* that the packet opens */
	struct route route;    /* that the kernel is asked for */
	__u32 device;	       /* that the packet leaves by */
	__u32 arrival;	       /* that it came in by: of a tagged frame, the VLAN's */
	struct vlan_tag tags[VLAN_TAGS]; /* that were taken off the frame, or that it is to get */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch_v1 SEC(".maps");

static INLINE struct scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch_v1, &zero);
}
