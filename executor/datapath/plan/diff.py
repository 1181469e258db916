"""The operations that turn what the kernel has into what it should have, in an order that serves every packet."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from datapath.compile.config import read_config
from datapath.compile.layouts import (
    ADDRESSES,
    BACKENDS,
    BANDWIDTH_DECIDED,
    LUTS,
    PEERS,
    SERVICE_DSR,
    SERVICES,
    VLANS_IN,
    VLANS_OUT,
    ServiceValue,
)
from datapath.plan.operations import (
    AddNeighbour,
    DeleteEntry,
    DeleteLut,
    Operation,
    PrepareMaps,
    PutBandwidth,
    PutEntry,
    PutHostBbr,
    PutLut,
    PutNode,
    PutProgram,
    RemoveBandwidth,
    RemoveHostBbr,
    RemoveLoadBalancer,
    RemoveNeighbour,
    RemoveNode,
    RemoveProgram,
    SetQdisc,
    SetSysctl,
    SwapLoadBalancer,
)
from datapath.plan.reuse import ids_change_hands
from datapath.plan.slots import slots_moved
from datapath.state.kernel_state import Entries, KernelState, LoadBalancer, Neighbour, UserProgram
from datapath.state.model import Program

_NOTHING: Entries = {}
_POINTING = frozenset((BACKENDS, LUTS, SERVICES, ADDRESSES))
"""Maps on the way from a frontend to a backend."""


@dataclass(frozen=True)
class Plan:
    """What is to be done, and between which two states."""

    operations: tuple[Operation, ...]
    want: KernelState
    have: KernelState

    @cached_property
    def slots_moved(self) -> dict[int, float]:
        """LUT id -> share of new flows that get another backend (`datapath.plan.slots`)."""
        return slots_moved(self.want, self.have)


def plan(want: KernelState, have: KernelState) -> Plan:
    """The operations from `have` to `want`; none where both are the same.

    Users' programs that go are removed first and new ones come last: they may change places with the load balancer.
    Sysctls that are not in `want` stay as they are.
    """
    operations: list[Operation] = [
        RemoveProgram(program) for name, program in sorted(have.programs.items()) if name not in want.programs
    ]
    if want.load_balancer is not None:
        operations += _balancer(want, want.load_balancer, have)
    else:
        operations += _no_balancer(want, have)
    operations += _node(want, have)
    operations += _bandwidth(want, have)
    operations += _host_bbr(want, have)
    for name, program in sorted(want.programs.items()):
        if name not in have.programs or not _same_program(program, have.programs[name]):
            operations.append(PutProgram(program))
    return Plan(tuple(operations), want, have)


def _same_program(one: UserProgram, other: UserProgram) -> bool:
    """The kernel does not know what a program was loaded from, and what was loaded is told by its tag."""

    def place(program: Program) -> Program:
        return replace(program, object_path="", source=None)

    return (one.tag, one.data) == (other.tag, other.data) and place(one.program) == place(other.program)


def _node(want: KernelState, have: KernelState) -> Iterator[Operation]:
    wanted, loaded = want.node, have.node
    if wanted is None:
        if loaded is not None:
            yield RemoveNode()
    elif loaded is None or loaded.problems or (wanted.config, wanted.devices) != (loaded.config, loaded.devices):
        yield PutNode(wanted)


def _bandwidth(want: KernelState, have: KernelState) -> Iterator[Operation]:
    """fq before the programs that rely on it, and gone after them; rates before the endpoints that have them."""
    wanted, loaded = want.bandwidth, have.bandwidth
    for device, qdisc in sorted(want.qdiscs.items()):
        if have.qdiscs.get(device) != qdisc:
            yield SetQdisc(device, qdisc.text)
    if wanted is not None:
        places = (wanted.config, wanted.native, wanted.endpoints)
        if loaded is None or loaded.problems or places != (loaded.config, loaded.native, loaded.endpoints):
            yield PutBandwidth(wanted)
        changes = [_entry_changes(name, want, have) for name in BANDWIDTH_DECIDED]
        yield from (each for puts, _ in changes for each in puts)
        yield from (each for _, deletes in reversed(changes) for each in deletes)
    elif loaded is not None:
        yield RemoveBandwidth()
    for device in have.own_qdiscs:
        if device not in want.qdiscs:
            yield SetQdisc(device, "")


def _host_bbr(want: KernelState, have: KernelState) -> Iterator[Operation]:
    if want.host_bbr is None:
        if have.host_bbr is not None:
            yield RemoveHostBbr()
    elif want.host_bbr != have.host_bbr:
        yield PutHostBbr(want.host_bbr)


def _entry_changes(name: str, want: KernelState, have: KernelState) -> tuple[list[Operation], list[Operation]]:
    """Entries to put and to delete."""
    wanted, present = want.entries.get(name, _NOTHING), have.entries.get(name, _NOTHING)
    puts: list[Operation] = [PutEntry(name, key, value) for key, value in wanted.items() if present.get(key) != value]
    return puts, [DeleteEntry(name, key) for key in present if key not in wanted]


def _no_balancer(want: KernelState, have: KernelState) -> Iterator[Operation]:
    if have.load_balancer is not None or have.map_sizes:
        yield RemoveLoadBalancer()
    yield from _sysctls(want, have)
    yield from (AddNeighbour(each) for each in _sorted(want.neighbours - have.neighbours))
    yield from (RemoveNeighbour(each) for each in _sorted(have.neighbours - want.neighbours))


def _balancer(want: KernelState, wanted: LoadBalancer, have: KernelState) -> Iterator[Operation]:
    sizes = want.map_sizes
    table_size = _table_size(want)
    replaced = _POINTING if ids_change_hands(want, have) else frozenset()
    staged = {name for name, size in sizes.items() if have.map_sizes.get(name) != size} | replaced
    if table_size != _table_size(have):
        staged.add(LUTS)
    if staged:
        yield PrepareMaps(sizes, table_size, replaced)
    yield from _sysctls(want, have)
    yield from (AddNeighbour(each) for each in _sorted(want.neighbours - have.neighbours))
    changes = [
        _changes(BACKENDS, want, have, staged=BACKENDS in staged),
        _lut_changes(want, have, staged=LUTS in staged),
        _changes(SERVICES, want, have, staged=SERVICES in staged),
        _changes(ADDRESSES, want, have, staged=ADDRESSES in staged),
        # Nothing points at these.
        _changes(VLANS_OUT, want, have, staged=VLANS_OUT in staged),
        _changes(VLANS_IN, want, have, staged=VLANS_IN in staged),
        _changes(PEERS, want, have, staged=PEERS in staged),
    ]
    swap = [SwapLoadBalancer(wanted.config, wanted.attachments)] if staged or _differs(wanted, have) else []
    yield from _entries(changes, swap)
    yield from (RemoveNeighbour(each) for each in _sorted(have.neighbours - want.neighbours))


def _entries(changes: Sequence[_Changes], swap: Iterable[SwapLoadBalancer]) -> Iterator[Operation]:
    """The changes of all maps around the swap of the program; `changes` are in the order in which maps are pointed at.

    Where a map becomes so small that ids change, their services have nobody between the swap and what follows it.
    """
    backwards = list(reversed(changes))
    yield from (each for change in backwards if change.crowded for each in change.deletes)
    late = _late(changes)
    for change in changes:
        yield from change.refills
        if change not in late:
            yield from change.puts
    yield from swap
    yield from (each for change in late for each in change.puts)
    yield from (each for change in backwards if not change.crowded for each in change.deletes)


def _differs(wanted: LoadBalancer, have: KernelState) -> bool:
    loaded = have.load_balancer
    if loaded is None or loaded.config != wanted.config or dict(loaded.attachments) != dict(wanted.attachments):
        return True
    return any(device in wanted.attachments for device in loaded.foreign)


def _table_size(state: KernelState) -> int:
    """Slots of a table; 0 where no program tells."""
    config = read_config(state)
    return int(config.maglev_table_size) if config is not None else 0


def _sysctls(want: KernelState, have: KernelState) -> Iterator[SetSysctl]:
    # By name, so accept_ra comes before forwarding: the other way round the kernel drops the routes that it learned.
    for name, value in sorted(want.sysctls.items()):
        if have.sysctls.get(name) != value:
            yield SetSysctl(name, value)


def _sorted(neighbours: Iterable[Neighbour]) -> list[Neighbour]:
    return sorted(neighbours, key=lambda each: (each.device, each.address.version, each.address))


@dataclass(frozen=True)
class _Changes:
    """What changes in one map."""

    puts: Sequence[Operation]
    deletes: Sequence[Operation]
    staged: bool
    """Whether the map is replaced by another that is being filled beside it."""
    refills: Sequence[Operation] = ()
    """Entries that stay, but may be missing in the staged map."""
    crowded: bool = False
    """Whether old and new entries do not fit together, so that deletions come first."""


def _late(changes: Sequence[_Changes]) -> list[_Changes]:
    """The changes that must wait for the program that uses the staged maps.

    A map in service must not point at what is only in a staged one so far, and what comes behind it has to wait
    with it.
    """
    for index, change in enumerate(changes):
        if not change.staged and any(each.staged for each in changes[:index]):
            return list(changes[index:])
    return []


def _changes(name: str, want: KernelState, have: KernelState, staged: bool) -> _Changes:
    wanted, present = want.entries.get(name, _NOTHING), have.entries.get(name, _NOTHING)
    size = want.map_sizes[name]
    puts, deletes = _entry_changes(name, want, have)
    if name == BACKENDS:
        # an array: every id has its place, and those beyond the new size are gone with the old map
        deletes = [DeleteEntry(name, key) for key in present if key not in wanted and _number(key) < size]
        return _Changes(puts, deletes, staged)
    refills: list[Operation] = []
    if staged and len(present) > size:
        # any part of the old entries may have found a place in the smaller map
        refills = [PutEntry(name, key, value) for key, value in present.items() if wanted.get(key) == value]
    return _Changes(puts, deletes, staged, refills, crowded=len(wanted) + len(deletes) > size)


def _number(key: bytes) -> int:
    return int(struct.unpack("=I", key)[0])


def _lut_changes(want: KernelState, have: KernelState, staged: bool) -> _Changes:
    """A staged map of tables is empty: tables are not copied, because their size may be another."""
    present: Mapping[int, bytes] = {} if staged else have.luts
    returned = {
        service.lut_id
        for service in map(ServiceValue.from_buffer_copy, want.entries.get(SERVICES, _NOTHING).values())
        if service.flags & SERVICE_DSR
    }
    puts = [
        PutLut(each, table, each in returned) for each, table in sorted(want.luts.items()) if present.get(each) != table
    ]
    return _Changes(puts, [DeleteLut(each) for each in sorted(present) if each not in want.luts], staged)
