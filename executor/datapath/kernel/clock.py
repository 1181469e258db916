"""The kernel's tick rate, in which the datapath stamps flows."""

from __future__ import annotations

import time

_CLOCK_MONOTONIC_COARSE = 6


def jiffies_hz() -> int:
    """CONFIG_HZ: jiffies of a second.

    The coarse clocks advance once a tick and say so: their resolution is the kernel's TICK_NSEC, exactly. Neither
    a configuration file nor a measurement is needed.
    """
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))
