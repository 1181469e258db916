/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Generated from executor/datapath/compile/outcomes.py; do not edit. */
#pragma once

enum bandwidth_outcome {
	/* Packet of an endpoint, marked with its number. */
	BANDWIDTH_OUTCOME_ENDPOINT_MARKED,
	/* Packet on a device that is no endpoint's. */
	BANDWIDTH_OUTCOME_UNKNOWN_DEVICE_PASSED,
	/* Packet that no rate is for. */
	BANDWIDTH_OUTCOME_NO_RATE_PASSED,
	/* Packet of an endpoint that keeps its rate; it may leave at once. */
	BANDWIDTH_OUTCOME_SENT_AT_ONCE,
	/* Packet of an endpoint that is ahead of its rate; fq lets it go when it is time. */
	BANDWIDTH_OUTCOME_DEPARTURE_SET,
	/* Packet that would have to wait until beyond the horizon. */
	BANDWIDTH_OUTCOME_HORIZON_DROPPED,
	/* Packet to an endpoint, within its rate and burst. */
	BANDWIDTH_OUTCOME_RECEIVED,
	/* Packet to an endpoint, beyond its rate and burst. */
	BANDWIDTH_OUTCOME_RATE_DROPPED,
	/* Packet of an endpoint, marked and routed out of the node. */
	BANDWIDTH_OUTCOME_ENDPOINT_ROUTED,
	BANDWIDTH_OUTCOMES_COUNT,
};

/* Sets of outcomes by verdict; bit n stands for outcome n. Everything else is dropped. */
#define BANDWIDTH_OUTCOMES_FORWARD 0x100ULL
#define BANDWIDTH_OUTCOMES_PASS 0x5fULL
