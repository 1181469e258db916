/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* A position in a frame that moves forward over headers, each checked once against the frame's end. */
#pragma once

#include "compiler.h"

struct cursor {
	void *position;
	void *end;
};

/* The next `size` bytes, or NULL where the frame ends before. */
static INLINE void *cursor_take(struct cursor *cursor, __u32 size)
{
	void *taken = cursor->position;

	if (unlikely(taken + size > cursor->end))
		return NULL;
	cursor->position = taken + size;
	return taken;
}

static INLINE bool cursor_has(const struct cursor *cursor, __u32 size)
{
	return cursor->position + size <= cursor->end;
}
