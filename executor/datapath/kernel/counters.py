"""Per-CPU counters, summed."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable

from datapath.kernel.entries import Entry


def counters(entries: Iterable[Entry]) -> dict[int, tuple[int, int]]:
    """Sum the CPUs' values (each `struct counter`: two u64); keys whose sums are zero are left out."""
    totals = {}
    zero = b""
    for key, value in entries:
        if len(zero) != len(value):
            zero = bytes(len(value))
        if value != zero:
            numbers = struct.unpack(f"={len(value) // 8}Q", value)
            totals[int.from_bytes(key, sys.byteorder)] = (sum(numbers[0::2]), sum(numbers[1::2]))
    return totals
