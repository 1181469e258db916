"""Maglev tables, slot for slot those of Cilium (pkg/maglev/maglev.go) for equal seed, size, backends and weights."""

from __future__ import annotations

import functools
import heapq
from array import array
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from datapath.compile.hashing import murmur3_x64_128
from datapath.state.model import Backend, Protocol


class Member(NamedTuple):
    """A backend as a table sees it."""

    hash_string: bytes
    weight: int
    """1 to 65535."""
    id: int
    """What its slots hold."""


def hash_string(backend: Backend, protocol: Protocol) -> bytes:
    """The text that stands for the backend on every node.

    Its state is always called active: a table must not move because a backend's state did.
    """
    return f"[{backend}/{protocol.name},State:active]".encode("ascii")


@functools.lru_cache(maxsize=65536)
def _hashes(text: bytes, seed: int) -> tuple[int, int]:
    return murmur3_x64_128(text, seed)


def permutation(text: bytes, size: int, seed: int) -> tuple[int, int]:
    """(offset, skip): the backend's preferred slots are `(offset + j * skip) mod size`, j from 0."""
    h1, h2 = _hashes(text, seed)
    return h1 % size, h2 % (size - 1) + 1


def table(members: Sequence[Member], size: int, seed: int) -> array[int]:
    """The table: `size` (a prime) slots of member ids; all zero without members.

    `members` may come in any order. With more members than slots the last ones by hash string get none.
    """
    ordered = sorted(members)
    slots = array("I", bytes(4 * size))
    if not ordered:
        return slots
    positions, skips = [], []
    for member in ordered:
        offset, skip = permutation(member.hash_string, size, seed)
        positions.append(offset)
        skips.append(skip)
    ids = [member.id for member in ordered]
    taken = bytearray(size)
    for turn in _turns([member.weight for member in ordered], size):
        slot, skip = positions[turn], skips[turn]
        while taken[slot]:
            slot += skip
            if slot >= size:
                slot -= size
        taken[slot] = 1
        slots[slot] = ids[turn]
        # the next turn starts here: this slot is taken, so it goes on by itself
        positions[turn] = slot
    return slots


def _turns(weights: Sequence[int], size: int) -> Iterator[int]:
    """Index of the member that takes a slot next, `size` times."""
    count = len(weights)
    if sum(weights) // count <= 1 or min(weights) == max(weights):
        # equal weights turn the weighted rule below into the same round robin
        return (turn % count for turn in range(size))
    return _weighted_turns(weights, size)


def _weighted_turns(weights: Sequence[int], size: int) -> Iterator[int]:
    """Turns by Envoy's rule: at turn n, starting at n mod L, the first member i with
    `(n + 1) * weight[i] >= int(credit[i])`, whose credit then grows by the sum of weights.

    The rule is monotone in n, so each member becomes eligible at a turn that is known beforehand: a heap of those
    turns and the sorted list of eligible members replace the scan over all members at every slot.
    """
    count, total = len(weights), sum(weights)
    credit = [weight / count for weight in weights]

    def eligible_from(index: int) -> int:
        return -(-int(credit[index]) // weights[index]) - 1

    waiting = [(eligible_from(index), index) for index in range(count)]
    heapq.heapify(waiting)
    eligible: list[int] = []
    for turn in range(size):
        while waiting and waiting[0][0] <= turn:
            insort(eligible, heapq.heappop(waiting)[1])
        # never empty: were all credit above (turn + 1) * weight, their sum would exceed what was handed out
        at = bisect_left(eligible, turn % count)
        if at == len(eligible):
            at = 0
        index = eligible[at]
        yield index
        credit[index] += total
        since = eligible_from(index)
        if since > turn:
            del eligible[at]
            heapq.heappush(waiting, (since, index))


def shares(slots: Sequence[int]) -> dict[int, float]:
    """Member id -> its share of the slots, 0 to 1; unused slots (id 0) are not counted."""
    counts = Counter(slots)
    counts.pop(0, None)
    return {each: count / len(slots) for each, count in sorted(counts.items())}
