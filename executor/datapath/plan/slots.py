"""How much of a table leads elsewhere after a change, by backend and not by id."""

from __future__ import annotations

import operator
import struct
from array import array
from typing import Optional

from datapath.compile.layouts import BACKENDS, BackendValue
from datapath.state.kernel_state import KernelState

Identity = tuple[bytes, int, int]
"""Address (16 bytes), port and protocol: what a backend is, whatever its id."""

_SAMPLES = 4096
_GOLDEN = 0x9E3779B1
"""2^32 over the golden ratio: multiples of it spread evenly over the u32s that flows hash to."""


def slots_moved(want: KernelState, have: KernelState) -> dict[int, float]:
    """LUT id -> share (0 to 1) of new flows that get another backend than now, or none; new tables move nothing."""
    moved = {}
    for lut_id, before in have.luts.items():
        after = want.luts.get(lut_id)
        if after == before:
            continue
        share = 1.0 if after is None else _share_moved(before, after, have, want)
        if share:
            moved[lut_id] = share
    return moved


def _share_moved(before: bytes, after: bytes, have: KernelState, want: KernelState) -> float:
    old, new = array("I", before), array("I", after)
    number: dict[Optional[Identity], int] = {}
    renumbered = []
    for slots, state in ((old, have), (new, want)):
        identities = {each: identity(state, each) for each in set(slots)}
        mine = {each: number.setdefault(known, len(number)) for each, known in identities.items()}
        renumbered.append([mine[each] for each in slots])
    first, second = renumbered
    if not first or not second:
        return 1.0
    if len(first) == len(second):
        return float(sum(map(operator.ne, first, second)) / len(first))
    hashes = [index * _GOLDEN & 0xFFFFFFFF for index in range(_SAMPLES)]
    return sum(first[each % len(first)] != second[each % len(second)] for each in hashes) / _SAMPLES


def identity(state: KernelState, backend_id: int) -> Optional[Identity]:
    """Who has the id in `state`; None where it is free."""
    value = state.entries.get(BACKENDS, {}).get(struct.pack("=I", backend_id))
    if value is None:
        return None
    stored = BackendValue.from_buffer_copy(value)
    return bytes(stored.address), stored.port, stored.protocol
