/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Generated from executor/datapath/compile/outcomes.py; do not edit. */
#pragma once

enum outcome {
	/* Packet of a known flow, sent to the flow's backend. */
	OUTCOME_REQUEST_FORWARDED,
	/* First packet of a flow, sent to the backend chosen for it. */
	OUTCOME_REQUEST_NEW_FLOW,
	/* Packet of a known flow that began anew: its backend is gone or takes no new connections, or its port is lost. */
	OUTCOME_REQUEST_RESELECTED,
	/* Reply of a backend, sent to the client with the VIP as source. */
	OUTCOME_REPLY_FORWARDED,
	/* ICMP echo request to a VIP, answered. */
	OUTCOME_ECHO_ANSWERED,
	/* TTL or hop limit used up on arrival, answered with ICMP time exceeded. */
	OUTCOME_TTL_EXPIRED_ANSWERED,
	/* Service without a usable backend, answered with ICMP port unreachable. */
	OUTCOME_NO_BACKEND_ANSWERED,
	/* Packet larger than the next hop's MTU, answered with ICMP fragmentation needed or packet too big. */
	OUTCOME_TOO_BIG_ANSWERED,
	/* Ethernet multicast or broadcast, passed to the stack. */
	OUTCOME_GROUP_FRAME_PASSED,
	/* Frame of a VLAN that is not served here, passed to the stack. */
	OUTCOME_VLAN_PASSED,
	/* Neither IPv4 nor IPv6, passed to the stack. */
	OUTCOME_NOT_IP_PASSED,
	/* IP version that is switched off, passed to the stack. */
	OUTCOME_FAMILY_DISABLED_PASSED,
	/* IP fragment, passed to the stack. */
	OUTCOME_FRAGMENT_PASSED,
	/* IPv6 packet with extension headers, passed to the stack. */
	OUTCOME_EXTENSION_HEADER_PASSED,
	/* Neither TCP, UDP nor ICMP, passed to the stack. */
	OUTCOME_PROTOCOL_PASSED,
	/* ICMP other than an echo request to a VIP, passed to the stack. */
	OUTCOME_ICMP_PASSED,
	/* Destination is no frontend of a service, passed to the stack. */
	OUTCOME_NO_SERVICE_PASSED,
	/* Reply of a backend, translated back and passed to the stack because only the stack can reach its next hop. */
	OUTCOME_REPLY_PASSED,
	/* Frame ends before the packet that its headers announce. */
	OUTCOME_TRUNCATED_DROPPED,
	/* IP header that contradicts itself. */
	OUTCOME_MALFORMED_IP_DROPPED,
	/* TCP, UDP or ICMP header that contradicts the packet's length. */
	OUTCOME_MALFORMED_TRANSPORT_DROPPED,
	/* Source that is no single host's, or an IPv4-mapped IPv6 address on the wire. */
	OUTCOME_INVALID_ADDRESS_DROPPED,
	/* Port of a VIP that belongs to no service. */
	OUTCOME_UNKNOWN_PORT_DROPPED,
	/* Service without a usable backend, and answers are switched off. */
	OUTCOME_NO_BACKEND_DROPPED,
	/* No free source port towards the chosen backend. */
	OUTCOME_NO_SNAT_PORT_DROPPED,
	/* MAC address of the backend's next hop is not resolved. */
	OUTCOME_NO_NEIGHBOUR_DROPPED,
	/* Route is missing, unreachable, prohibited or a black hole. */
	OUTCOME_NO_ROUTE_DROPPED,
	/* Route to the backend ends on this node or needs an encapsulation that only the stack can do. */
	OUTCOME_UNSUPPORTED_ROUTE_DROPPED,
	/* Forwarding is switched off on the receiving device. */
	OUTCOME_FORWARDING_DISABLED_DROPPED,
	/* Packet larger than the next hop's MTU that asks for fragmentation. */
	OUTCOME_TOO_BIG_DROPPED,
	/* Frame has no room for the ICMP error that was due. */
	OUTCOME_ANSWER_FAILED_DROPPED,
	/* ICMP error that was due or to be handed on, left out: this second had its share. */
	OUTCOME_ANSWER_LIMITED_DROPPED,
	/* ICMP error about a packet of a flow, translated and sent to the flow's other end. */
	OUTCOME_ICMP_ERROR_FORWARDED,
	/* Fragment to a VIP whose datagram's first one was not seen. */
	OUTCOME_FRAGMENT_UNKNOWN_DROPPED,
	/* Packet to a VIP of a transport protocol that no service can have. */
	OUTCOME_UNKNOWN_PROTOCOL_DROPPED,
	/* Frame or IP header has no room for what the dispatch adds. */
	OUTCOME_NO_ROOM_DROPPED,
	/* ICMP error about a reply of a flow that is not here, handed to another load balancer. */
	OUTCOME_ICMP_ERROR_RELAYED,
	OUTCOMES_COUNT,
};

/* Sets of outcomes by verdict; bit n stands for outcome n. Everything else is dropped. */
#define OUTCOMES_FORWARD 0x110000000fULL
#define OUTCOMES_ANSWER 0xf0ULL
#define OUTCOMES_PASS 0x3ff00ULL
