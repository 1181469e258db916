"""Slots that change owner: what the datapath needs to keep established flows where they are (pure).

With direct server return a table's slot names the backend of every flow that hashes to it, and nothing is remembered
of flows. Where a slot gets another owner the previous one is kept beside it and the slot is marked, so that the
datapath knows to look there for connections that are older than the change.
"""

from __future__ import annotations

import sys
from array import array
from typing import Optional

from datapath.compile.layouts import SLOT_MOVED


def owners(slots: bytes) -> bytes:
    """The table without its marks."""
    mask = int.from_bytes((SLOT_MOVED ^ 0xFFFFFFFF).to_bytes(4, sys.byteorder) * (len(slots) // 4), sys.byteorder)
    return (int.from_bytes(slots, sys.byteorder) & mask).to_bytes(len(slots), sys.byteorder)


def moved(before: bytes, history: Optional[bytes], after: bytes) -> tuple[bytes, Optional[bytes]]:
    """The table `after` with its marks, and the history that goes with it (None: no slot has one).

    `before` is the table in service with its marks, b"" where there is none, and `history` what goes with that. A slot
    that gets another owner is marked, with the owner before as its history. A slot that stays keeps its mark and its
    history: flows of an owner before that may be recorded, and are only looked for where there is a mark. A slot that
    nobody had moves from nobody.
    """
    if len(before) != len(after):
        return after, None
    if owners(before) == after:
        return before, history
    old, new = array("I", before), array("I", after)
    known = array("I", history) if history is not None and len(history) == len(after) else array("I", bytes(len(after)))
    for slot, (marked, owner) in enumerate(zip(old, new)):
        previous = marked & ~SLOT_MOVED
        if previous != owner and previous:
            known[slot] = previous
        elif not marked & SLOT_MOVED:
            continue
        new[slot] = owner | SLOT_MOVED
    return new.tobytes(), known.tobytes()
