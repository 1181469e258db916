/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* As another version of the object could be: with a larger map. */
#define LARGE
#include "tc_node.bpf.c"
