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

/* Says that a parameter is used: else clang would not pass it, and the verifier insists. */
#define keep_argument(parameter) __asm__ __volatile__("" : : "r"(parameter))

/* Off the hot path, too, and verified by itself: only the context and numbers go in, the rest is in the scratch. */
#define SLOW __attribute__((noinline))

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Keeps the compiler from reasoning about a value: what the verifier has to see stays where it is written. */
#define opaque(value) __asm__ __volatile__("" : "+r"(value))

/* A 32-bit field of the context. The verifier wants the context's own address with a constant offset, while the compiler
 * likes to keep the field's address; and a field read again after a helper call has to be read again.
 */
#define context_field(context, field)                                                                                  \
	({                                                                                                             \
		__u64 value_;                                                                                          \
		__asm__ __volatile__("%0 = *(u32 *)(%1 + %2)"                                                          \
				     : "=r"(value_)                                                                    \
				     : "r"(context), "i"(offsetof(typeof(*(context)), field)));                        \
		value_;                                                                                                \
	})

static INLINE __u32 minimum(__u32 a, __u32 b)
{
	return a < b ? a : b;
}
