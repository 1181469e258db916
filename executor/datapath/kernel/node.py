"""The programs of a backend that answers clients itself: loaded on maps that stay, attached at tc, read back."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import ExitStack
from typing import Optional

from datapath.kernel import abi, libbpf, tc
from datapath.kernel.attachments import Transaction, existing
from datapath.kernel.bpf_object import BpfObject, MapDefinition
from datapath.kernel.devices import links
from datapath.kernel.entries import Entry, Writer, read_entries
from datapath.kernel.load_balancer import CONFIG, config_of
from datapath.kernel.maps import map_names
from datapath.kernel.objects import NODE, ObjectSource
from datapath.kernel.pins import Pins, unpin
from datapath.state.kernel_state import NodePrograms

NAME = "tc_node"
PROGRAMS = {tc.EGRESS: "tc_node_egress", tc.INGRESS: "tc_node_ingress"}
"""Direction -> function. Egress comes first: a request that is let in wants its reply translated."""


def put(pins: Pins, objects: ObjectSource, config: bytes, devices: Collection[str]) -> None:
    """Load the programs with `config`, replace them on every device of `devices`, detach them from others.

    What they remember of flows stays. On any failure the programs that were in service are so again.

    Raises:
        BpfError: with the verifier's log, when it rejects a program.
        RefusedError: a device is missing.
    """
    pins.create()
    with BpfObject(objects.read(NODE), NODE) as obj, ExitStack() as stack, Transaction() as transaction:
        names = map_names(obj)
        fitting = {name for name in names if _reuse(stack, pins, obj, name)}
        obj.set_initial_value(CONFIG, config)
        obj.load_only(tuple(PROGRAMS.values()))
        obj.load()
        for name in names:
            if name not in fitting:
                _keep_map(pins, obj, name)
        known = links()
        for direction, function in PROGRAMS.items():
            program = obj.program_fd(function)
            for device in sorted(devices):
                link = existing(known, device)
                tc.attach(transaction, pins, NAME, program, link=link, direction=direction)
        for direction, function in PROGRAMS.items():
            staged = pins.staged / function
            unpin(staged)
            libbpf.pin(obj.program_fd(function), staged)
            staged.rename(pins.node_program(direction))
    for path in pins.node_maps.iterdir():
        if path.name not in names:
            unpin(path)
    tc.detach_all(pins, NAME, keep=devices)


def _reuse(stack: ExitStack, pins: Pins, obj: BpfObject, name: str) -> bool:
    """Use the pinned map where it is what the object declares."""
    fd = libbpf.pinned(pins.node_maps / name)
    if fd is None:
        return False
    stack.enter_context(libbpf.closing(fd))
    if not _fits(libbpf.map_info(fd), obj.map_definition(name)):
        return False
    obj.reuse_map(name, fd)
    return True


def _fits(info: abi.MapInfo, wanted: MapDefinition) -> bool:
    size = wanted.max_entries
    if wanted.flags & abi.BPF_F_NO_COMMON_LRU:
        # The kernel rounds the size of a per-CPU LRU to a multiple of the CPUs.
        cpus = libbpf.possible_cpus()
        size = -(-size // cpus) * cpus
    present = (info.type, info.key_size, info.value_size, info.flags, info.max_entries)
    return present == (wanted.type, wanted.key_size, wanted.value_size, wanted.flags, size)


def _keep_map(pins: Pins, obj: BpfObject, name: str) -> None:
    """Pin a new map; where it takes the place of one of the same layout, with the entries of that."""
    place = pins.node_maps / name
    old = libbpf.pinned(place)
    if old is not None:
        with libbpf.closing(old):
            before, after = libbpf.map_info(old), obj.map_definition(name)
            dense = after.type in (abi.MapType.ARRAY, abi.MapType.PERCPU_ARRAY)
            if (before.key_size, before.value_size) == (after.key_size, after.value_size):
                known = [each for each in read_entries(old) if not dense or _number(each[0]) < after.max_entries]
                Writer().put(obj.map_fd(name), known)
    staged = pins.staged / f"node_{name}"
    unpin(staged)
    libbpf.pin(obj.map_fd(name), staged)
    staged.rename(place)


def _number(key: bytes) -> int:
    return int.from_bytes(key, sys.byteorder)


def remove(pins: Pins) -> None:
    """Detach everywhere, unpin programs and maps."""
    tc.detach_all(pins, NAME)
    for direction in PROGRAMS:
        unpin(pins.node_program(direction))
    if pins.node_maps.is_dir():
        for path in pins.node_maps.iterdir():
            unpin(path)


def read(pins: Pins) -> Optional[NodePrograms]:
    """The programs as they are attached, None where nothing of theirs is there."""
    attached = tc.attached(pins, NAME)
    pinned = {direction: _pinned_id(pins, direction) for direction in PROGRAMS}
    numbers = [each.program for each in attached] + [number for number in pinned.values() if number]
    if not numbers:
        return None
    with libbpf.closing(libbpf.program_by_id(numbers[0])) as program:
        config = config_of(program)
    devices = {link.index: link.name for link in links().values()}
    found: dict[str, dict[str, int]] = {}
    for each in attached:
        if each.index in devices:
            found.setdefault(devices[each.index], {})[each.direction] = each.program
    problems = {device: _problem(programs, pinned) for device, programs in found.items() if programs != pinned}
    return NodePrograms(config, frozenset(found), problems)


def entries(pins: Pins, map_name: str) -> list[Entry]:
    """All entries of a map of theirs; none where it is not there."""
    fd = libbpf.pinned(pins.node_maps / map_name)
    if fd is None:
        return []
    with libbpf.closing(fd):
        return list(read_entries(fd))


def _pinned_id(pins: Pins, direction: str) -> int:
    """Id of the pinned program; 0 where there is none."""
    fd = libbpf.pinned(pins.node_program(direction))
    if fd is None:
        return 0
    with libbpf.closing(fd):
        return int(libbpf.program_info(fd).id)


def _problem(programs: dict[str, int], pinned: dict[str, int]) -> str:
    missing = [PROGRAMS[direction] for direction in PROGRAMS if direction not in programs]
    if missing:
        return f"{' and '.join(missing)} not attached"
    return "carries other programs than the pinned ones"
