"""Programs of ours at tc that belong together: one object, maps that stay, attached at groups of devices, read back."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from datapath.kernel import abi, libbpf, tc
from datapath.kernel.attachments import Transaction, existing
from datapath.kernel.bpf_object import BpfObject, MapDefinition
from datapath.kernel.devices import links
from datapath.kernel.entries import Entry, Writer, read_entries
from datapath.kernel.load_balancer import CONFIG, config_of
from datapath.kernel.maps import map_names
from datapath.kernel.objects import ObjectSource
from datapath.kernel.pins import Pins, unpin


@dataclass(frozen=True)
class Group:
    """Programs that a device carries together."""

    name: str
    """Theirs at tc (`kernel.tc`)."""
    programs: Mapping[str, str]
    """Direction -> function, in the order of attaching."""


@dataclass(frozen=True)
class Bundle:
    """What belongs together."""

    object: str
    """The object file, which has no other programs."""
    maps: str
    """Directory of the maps, below the pins."""
    groups: Sequence[Group]

    @property
    def functions(self) -> tuple[str, ...]:
        """All programs; each is pinned by its name."""
        return tuple(function for group in self.groups for function in group.programs.values())


@dataclass(frozen=True)
class Loaded:
    """A bundle as the kernel has it."""

    config: bytes
    devices: Sequence[frozenset[str]]
    """Of each group."""
    problems: Mapping[str, str]
    """Device -> what is wrong there: a program of its group is missing, or is not the pinned one."""


def put(pins: Pins, objects: ObjectSource, bundle: Bundle, config: bytes, devices: Sequence[Collection[str]]) -> None:
    """Load the programs with `config`, replace them on the devices of each group, detach them from others.

    What is in their maps stays. On any failure the programs that were in service are so again.

    Raises:
        BpfError: with the verifier's log, when it rejects a program.
        RefusedError: a device is missing.
    """
    pins.create()
    directory = maps(pins, bundle)
    directory.mkdir(exist_ok=True)
    with BpfObject(objects.read(bundle.object), bundle.object) as obj, ExitStack() as stack:
        transaction = stack.enter_context(Transaction())
        names = map_names(obj)
        fitting = {name for name in names if _reuse(stack, directory, obj, name)}
        obj.set_initial_value(CONFIG, config)
        obj.load_only(bundle.functions)
        obj.load()
        for name in names:
            if name not in fitting:
                _keep_map(pins.staged, directory, obj, name)
        known = links()
        for group, chosen in zip(bundle.groups, devices):
            for direction, function in group.programs.items():
                program = obj.program_fd(function)
                for device in sorted(chosen):
                    link = existing(known, device)
                    tc.attach(transaction, pins, group.name, program, link=link, direction=direction)
        for function in bundle.functions:
            staged = pins.staged / function
            unpin(staged)
            libbpf.pin(obj.program_fd(function), staged)
            staged.rename(pins.root / function)
    for path in directory.iterdir():
        if path.name not in names:
            unpin(path)
    for group, chosen in zip(bundle.groups, devices):
        tc.detach_all(pins, group.name, keep=chosen)


def maps(pins: Pins, bundle: Bundle) -> Path:
    """Directory of the maps."""
    return pins.root / bundle.maps


def _reuse(stack: ExitStack, directory: Path, obj: BpfObject, name: str) -> bool:
    """Use the pinned map where it is what the object declares."""
    fd = libbpf.pinned(directory / name)
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


def _keep_map(stage: Path, directory: Path, obj: BpfObject, name: str) -> None:
    """Pin a new map; where it takes the place of one of the same layout, with the entries of that."""
    place = directory / name
    old = libbpf.pinned(place)
    if old is not None:
        with libbpf.closing(old):
            before, after = libbpf.map_info(old), obj.map_definition(name)
            dense = after.type in (abi.MapType.ARRAY, abi.MapType.PERCPU_ARRAY)
            if (before.key_size, before.value_size) == (after.key_size, after.value_size):
                known = [each for each in read_entries(old) if not dense or _number(each[0]) < after.max_entries]
                Writer().put(obj.map_fd(name), known)
    staged = stage / f"{directory.name}_{name}"
    unpin(staged)
    libbpf.pin(obj.map_fd(name), staged)
    staged.rename(place)


def _number(key: bytes) -> int:
    return int.from_bytes(key, sys.byteorder)


def remove(pins: Pins, bundle: Bundle) -> None:
    """Detach everywhere, unpin programs and maps."""
    for group in bundle.groups:
        tc.detach_all(pins, group.name)
    for function in bundle.functions:
        unpin(pins.root / function)
    directory = maps(pins, bundle)
    if directory.is_dir():
        for path in directory.iterdir():
            unpin(path)
        directory.rmdir()


def read(pins: Pins, bundle: Bundle) -> Optional[Loaded]:
    """The programs as they are attached, None where nothing of theirs is there."""
    attached = [tc.attached(pins, group.name) for group in bundle.groups]
    pinned = {function: _pinned_id(pins.root / function) for function in bundle.functions}
    numbers = [each.program for group in attached for each in group] + list(filter(None, pinned.values()))
    if not numbers:
        return None
    with libbpf.closing(libbpf.program_by_id(numbers[0])) as program:
        config = config_of(program)
    names = {link.index: link.name for link in links().values()}
    devices: list[frozenset[str]] = []
    problems: dict[str, str] = {}
    for group, places in zip(bundle.groups, attached):
        found: dict[str, dict[str, int]] = {}
        for each in places:
            if each.index in names:
                found.setdefault(names[each.index], {})[each.direction] = each.program
        devices.append(frozenset(found))
        problems.update(_problems(group, found, pinned))
    return Loaded(config, devices, problems)


def entries(pins: Pins, bundle: Bundle, map_name: str) -> list[Entry]:
    """All entries of a map of theirs; none where it is not there."""
    fd = libbpf.pinned(maps(pins, bundle) / map_name)
    if fd is None:
        return []
    with libbpf.closing(fd):
        return list(read_entries(fd))


def _pinned_id(path: Path) -> int:
    """Id of a pinned program; 0 where there is none."""
    fd = libbpf.pinned(path)
    if fd is None:
        return 0
    with libbpf.closing(fd):
        return int(libbpf.program_info(fd).id)


def _problems(
    group: Group, found: Mapping[str, Mapping[str, int]], pinned: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    wanted = {direction: pinned[function] for direction, function in group.programs.items()}
    for device, programs in found.items():
        missing = [function for direction, function in group.programs.items() if direction not in programs]
        if missing:
            yield device, f"{' and '.join(missing)} not attached"
        elif programs != wanted:
            yield device, "carries other programs than the pinned ones"
