/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Counters of packets and bytes. */
#pragma once

#include "../maps/layout.h"
#include "compiler.h"

static INLINE void count(struct counter *counter, __u32 bytes)
{
	if (!counter)
		return;
	counter->packets++;
	counter->bytes += bytes;
}
