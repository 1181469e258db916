"""Whether ids of full maps pass from one service to another within one change."""

from __future__ import annotations

from collections.abc import Mapping

from datapath.compile.layouts import BACKENDS, SERVICES, BackendValue, ServiceValue
from datapath.state.kernel_state import KernelState


def ids_change_hands(want: KernelState, have: KernelState) -> bool:
    """Whether a backend's or a table's id is somebody's now and will be somebody else's.

    Ids in use are given away only where a map is too full for both. Then no order of single writes serves every
    packet: between two of them a table would lead to another service's backends, which are not taken.
    """
    return _backends(want, have) or _tables(want, have)


def _backends(want: KernelState, have: KernelState) -> bool:
    """A table may well lead to another backend of its own at once."""
    wanted = want.entries.get(BACKENDS, {})
    return any(
        key in wanted and wanted[key] != value and _table(wanted[key]) != _table(value)
        for key, value in have.entries.get(BACKENDS, {}).items()
    )


def _table(packed: bytes) -> int:
    return int(BackendValue.from_buffer_copy(packed).lut_id)


def _tables(want: KernelState, have: KernelState) -> bool:
    """A service that keeps its table keeps a frontend, too: tables are found again by frontends."""
    before, after = _frontends(have), _frontends(want)
    return any(frontends.isdisjoint(after[lut_id]) for lut_id, frontends in before.items() if lut_id in after)


def _frontends(state: KernelState) -> Mapping[int, set[bytes]]:
    """LUT id -> frontends that point at it."""
    found: dict[int, set[bytes]] = {}
    for key, value in state.entries.get(SERVICES, {}).items():
        found.setdefault(ServiceValue.from_buffer_copy(value).lut_id, set()).add(key)
    return found
