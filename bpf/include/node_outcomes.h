/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Generated from executor/datapath/compile/outcomes.py; do not edit. */
#pragma once

enum node_outcome {
	/* Packet with the option of direct server return: its service is noted. */
	NODE_OUTCOME_OPTION_RECORDED,
	/* Packet in Geneve with the option: unpacked, its service is noted. */
	NODE_OUTCOME_GENEVE_RECORDED,
	/* Packet in Geneve without the option, unpacked. */
	NODE_OUTCOME_GENEVE_UNPACKED,
	/* Packet in an IP tunnel, unpacked. */
	NODE_OUTCOME_IPIP_UNPACKED,
	/* Connection to the backend itself: what was noted of its ports is gone. */
	NODE_OUTCOME_DIRECT_FORGOTTEN,
	/* Other TCP or UDP packet that came in. */
	NODE_OUTCOME_REQUEST_PASSED,
	/* Geneve that is not the load balancer's. */
	NODE_OUTCOME_GENEVE_FOREIGN_PASSED,
	/* IP fragment that tells nothing. */
	NODE_OUTCOME_FRAGMENT_PASSED,
	/* Frame that is not addressed to this node alone. */
	NODE_OUTCOME_OTHER_HOST_PASSED,
	/* Neither IPv4 nor IPv6, an IP version that is switched off, or neither TCP nor UDP. */
	NODE_OUTCOME_PROTOCOL_PASSED,
	/* Headers that contradict themselves or the frame; the stack's to judge. */
	NODE_OUTCOME_MALFORMED_PASSED,
	/* Packet that could not be unpacked or translated. */
	NODE_OUTCOME_CHANGE_FAILED_DROPPED,
	/* Reply that leaves with the service's address as source. */
	NODE_OUTCOME_REPLY_TRANSLATED,
	/* Further fragment of such a reply. */
	NODE_OUTCOME_REPLY_FRAGMENT_TRANSLATED,
	/* Packet that leaves as it is. */
	NODE_OUTCOME_REPLY_PASSED,
	/* ICMP error of the node about a packet to a service. */
	NODE_OUTCOME_REPLY_ERROR_TRANSLATED,
	NODE_OUTCOMES_COUNT,
};

/* Sets of outcomes by verdict; bit n stands for outcome n. Everything else is dropped. */
#define NODE_OUTCOMES_PASS 0xf7ffULL
