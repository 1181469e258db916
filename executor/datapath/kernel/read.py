"""`have`: our part of the kernel, read from the kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, Optional

from datapath.compile import layouts
from datapath.kernel import (
    bandwidth,
    bundle,
    devices,
    host_bbr,
    load_balancer,
    neighbours,
    node,
    programs,
    qdisc,
    sysctl,
)
from datapath.kernel.entries import Entry
from datapath.kernel.maps import Maps
from datapath.kernel.pins import Pins
from datapath.state.kernel_state import Entries, KernelState, NodePrograms

_DECIDED = (
    layouts.SERVICES,
    layouts.BACKENDS,
    layouts.ADDRESSES,
    layouts.VLANS_OUT,
    layouts.VLANS_IN,
    layouts.PEERS,
)
"""Maps whose contents desired state decides."""
_LUT_ID = {
    layouts.SERVICES: layouts.ServiceValue.lut_id.offset,
    layouts.BACKENDS: layouts.BackendValue.lut_id.offset,
}
"""Where values name a table."""


def read(pins: Pins, maps: Maps, tables: Callable[[Iterable[int]], Mapping[int, bytes]]) -> KernelState:
    """Sizes and contents of the pinned maps, what is attached where, sysctls, neighbours, users' programs.

    `tables` reads those of some ids.
    """
    sizes = maps.sizes()
    links = devices.links()
    entries = {name: _entries(maps, name) for name in _DECIDED if name in sizes}
    return KernelState(
        map_sizes=sizes,
        entries={**entries, **bandwidth.entries(pins)},
        luts=tables(lut_ids(entries)) if layouts.LUTS in sizes else {},
        load_balancer=load_balancer.read(pins, maps, links),
        node=_node(pins),
        bandwidth=bandwidth.read(pins),
        host_bbr=host_bbr.read(pins),
        qdiscs=qdisc.read(),
        sysctls=sysctl.read_all(links),
        neighbours=neighbours.read(),
        programs=programs.read(pins),
    )


def _node(pins: Pins) -> Optional[NodePrograms]:
    loaded = bundle.read(pins, node.BUNDLE)
    return None if loaded is None else NodePrograms(loaded.config, loaded.devices[0], loaded.problems)


def lut_ids(entries: Mapping[str, Entries]) -> set[int]:
    """Ids of the tables that services and backends name: no packet can reach another."""
    found = {0}
    for name, offset in _LUT_ID.items():
        found |= {int.from_bytes(value[offset : offset + 4], sys.byteorder) for value in entries.get(name, {}).values()}
    return found - {0}


def _entries(maps: Maps, name: str) -> Entries:
    return _in_use(name, maps.entries(name))


def lookup(maps: Maps, name: str, keys: Sequence[bytes]) -> Entries:
    """The entries of `keys`, as `read` has them."""
    return _in_use(name, maps.lookup(name, keys).items())


def _in_use(name: str, entries: Iterable[Entry]) -> Entries:
    """In an array every key exists; an all-zero value is a free id."""
    return {key: value for key, value in entries if name != layouts.BACKENDS or any(value)}
