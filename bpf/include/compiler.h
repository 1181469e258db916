/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h> /* offsetof, barrier */

typedef _Bool bool;
#define true 1
#define false 0

#define NULL ((void *)0)

#define INLINE __attribute__((always_inline)) inline

/* Off the hot path: a function of its own keeps the caller's registers, stack and instruction cache small. */
#define COLD __attribute__((noinline))

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Keeps the compiler from reasoning about a value: what the verifier has to see stays where it is written. */
#define opaque(value) __asm__ __volatile__("" : "+r"(value))

static INLINE __u32 minimum(__u32 a, __u32 b)
{
	return a < b ? a : b;
}
