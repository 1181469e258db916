/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* The stand-in of the load balancer as it runs at tc: the same maps. */
#define AT_TC
#include "xdp_lb.bpf.c"
