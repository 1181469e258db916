"""Users' own programs (module `program`): loaded, pinned, attached to XDP, tc or a cgroup, replaced atomically."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

from datapath.kernel import abi, cgroups, clsact, libbpf, source, tc
from datapath.kernel.abi import LinkType, ProgramType
from datapath.kernel.attachments import Transaction, attach_xdp, detach, existing, pin_link, update_link
from datapath.kernel.bpf_object import BpfObject, ObjectProgram
from datapath.kernel.devices import links
from datapath.kernel.errors import BpfError, RefusedError
from datapath.kernel.features import has
from datapath.kernel.pins import Pins, ensure_bpffs, unpin
from datapath.spec.errors import SpecError, nearest_name
from datapath.state.kernel_state import UserProgram
from datapath.state.model import Hook, Program

_TYPES = {Hook.XDP: {ProgramType.XDP}, Hook.TC: {ProgramType.SCHED_CLS}}
_CGROUP_TYPES = {
    ProgramType.CGROUP_SKB,
    ProgramType.CGROUP_SOCK,
    ProgramType.SOCK_OPS,
    ProgramType.CGROUP_DEVICE,
    ProgramType.CGROUP_SOCK_ADDR,
    ProgramType.CGROUP_SYSCTL,
    ProgramType.CGROUP_SOCKOPT,
}
_DIRECTIONS = {int(attach_type): direction for direction, attach_type in tc.TCX.items()}
_KERNEL_NAME = 15
_REMEMBERED_SOURCES = 64


@contextmanager
def _loaded(program: Program, with_pins: bool) -> Iterator[tuple[int, int]]:
    """The program, loaded: (file descriptor, `enum bpf_attach_type`)."""
    if program.source is None:
        with _loaded_object(program, with_pins) as (fd, chosen):
            yield fd, chosen.attach_type
        return
    with _loaded_source(program.source, program.function, program.hook) as fd:
        yield fd, 0


@contextmanager
def _loaded_source(text: str, function: Optional[str], hook: Hook) -> Iterator[int]:
    """The program of a source, loaded: its file descriptor."""
    (kind,) = _TYPES[hook]
    with source.loaded(text, kind, lambda names: names[_choose(names, function, "the source")]) as (fd, _):
        yield fd


@contextmanager
def _loaded_object(program: Program, with_pins: bool) -> Iterator[tuple[int, ObjectProgram]]:
    """The program of an object, loaded: (file descriptor, as the object declares it)."""
    try:
        data = Path(program.object_path).read_bytes()
    except OSError as e:
        raise RefusedError(f"{program.object_path} cannot be read: {e.strerror}", "object") from e
    try:
        opened = BpfObject(data, program.name)
    except BpfError as e:
        log = f" ({e.log.strip().splitlines()[-1]})" if e.log.strip() else ""
        raise RefusedError(f"{program.object_path} is no eBPF object that libbpf can open{log}", "object") from e
    with opened as obj:
        declared = obj.programs()
        chosen = declared[_choose([each.name for each in declared], program.function, program.object_path)]
        kind = _kind(chosen, program.hook)
        if kind is not None:
            obj.set_program_type(chosen.name, kind)
        if not with_pins:
            obj.forget_pins()
        obj.load_only((chosen.name,))
        obj.load()
        yield obj.program_fd(chosen.name), chosen


def _choose(names: Sequence[str], wanted: Optional[str], where: str) -> int:
    """Index of the program to load; `where` they are is for the refusal."""
    listed = ", ".join(names) or "none"
    if wanted is None:
        if len(names) == 1:
            return 0
        raise RefusedError(f"{where} holds {len(names)} programs ({listed}): say which one", "program", names)
    # An object without BTF shows its functions under the kernel's short names once they are loaded.
    for candidates in (
        [index for index, name in enumerate(names) if name == wanted],
        [index for index, name in enumerate(names) if name[:_KERNEL_NAME] == wanted],
    ):
        if len(candidates) == 1:
            return candidates[0]
    raise RefusedError(f"{where} holds no program {wanted}; it holds: {listed}", "program", names)


def _kind(chosen: ObjectProgram, hook: Hook) -> Optional[ProgramType]:
    """Program type to set, None where the section's name already says it.

    Raises:
        RefusedError: a program of this section cannot be attached there.
    """
    if hook is Hook.NONE:
        return None
    allowed = _TYPES.get(hook, _CGROUP_TYPES)
    if chosen.type == 0 and len(allowed) == 1:
        return next(iter(allowed))
    if chosen.type not in allowed:
        message = f"program {chosen.name} of section {chosen.section!r} cannot be attached to {hook.value}"
        raise RefusedError(message, "attach.type")
    if hook is Hook.CGROUP and chosen.section == "cgroup/skb":
        message = f"section 'cgroup/skb' of {chosen.name} names no direction: cgroup_skb/ingress or /egress"
        raise RefusedError(message, "program")
    # The kernel admits a classifier to TCX and to cls_bpf alike only without an expected attach type.
    return ProgramType.SCHED_CLS if hook is Hook.TC else None


def _data(program: int) -> str:
    """SHA-256 over how the maps that a loaded program uses are made, and over its read-only data; "" without maps.

    The program's tag covers neither.
    """
    found = []
    for number in libbpf.program_map_ids(program):
        with libbpf.closing(libbpf.map_by_id(number)) as fd:
            info = libbpf.map_info(fd)
            read_only = info.flags & abi.BPF_F_RDONLY_PROG and "." in info.name
            value = libbpf.map_lookup(fd, bytes(4), info.value_size) if read_only else None
        made = (info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        found.append(f"{info.name} {made} {(value or b'').hex()}\n")
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest() if found else ""


_Identity = tuple[str, str, str]
"""(function, tag, data) of a loaded program."""


def _identity(fd: int) -> _Identity:
    return libbpf.function_name(fd), libbpf.program_info(fd).tag, _data(fd)


@functools.lru_cache(_REMEMBERED_SOURCES)
def _source_identity(text: str, function: Optional[str], hook: Hook) -> _Identity:
    """What a source becomes on this kernel; remembered, because each plan asks and compiling takes seconds."""
    with _loaded_source(text, function, hook) as fd:
        return _identity(fd)


def inspect(pins: Pins, program: Program) -> UserProgram:
    """Load the program, attach and pin nothing; what it is, with everything spelled as `read` spells it.

    Raises:
        BpfError: with the verifier's log, when it rejects the program.
        RefusedError: there is no such object, the source does not compile or cannot be compiled here, it has no such
            program, or that cannot be attached there.
    """
    if program.source is not None:
        function, tag, data = _source_identity(program.source, program.function, program.hook)
    else:
        with _loaded(program, with_pins=False) as (fd, _):
            function, tag, data = _identity(fd)
    return UserProgram(_normal(pins, program, function), tag, data)


def refusal(program: Program, error: RefusedError) -> SpecError:
    """The refusal of a program as a violation of its description."""
    values = {
        "object": program.object_path or None,
        "program": program.function,
        "attach.type": program.hook.value,
        "attach.cgroup": program.cgroup,
    }
    path = f"programs.{program.name}" + (f".{error.field}" if error.field else "")
    value = values.get(error.field)
    allowed = ", ".join(error.allowed) or None
    return SpecError("programs", path, value, str(error), allowed, nearest_name(value, error.allowed))


def _normal(pins: Pins, program: Program, function: str) -> Program:
    return dataclasses.replace(
        program,
        function=function,
        device=program.device if program.hook in (Hook.XDP, Hook.TC) else None,
        mode=program.mode if program.hook is Hook.XDP else "native",
        direction=program.direction if program.hook is Hook.TC else "ingress",
        cgroup=cgroups.canonical(program.cgroup or "") if program.hook is Hook.CGROUP else None,
        pin=None if program.pin in (None, str(pins.program(program.name))) else program.pin,
    )


# --- putting ---


@dataclasses.dataclass(frozen=True)
class _Put:
    """What the handlers of the hooks need."""

    transaction: Transaction
    program: Program
    fd: int
    attach_type: int
    pin: Path


def put(pins: Pins, program: Program) -> None:
    """Load, attach and pin; what carried this name before is replaced in place, or goes once the new one is there.

    Raises:
        BpfError, RefusedError, OSError: nothing changed.
    """
    pins.create()
    with _loaded(program, with_pins=True) as (fd, attach_type):
        aside = pins.staged / pins.program_link(program.name).name
        with Transaction() as transaction:
            _set_aside(transaction, pins, program, aside)
            job = _Put(transaction, program, fd, attach_type, pins.program_link(program.name))
            _ATTACH[program.hook](job)
            _pin(pins, program, fd)
        detach(aside)
        _remove_filters(program.name, keep=program)


def _set_aside(transaction: Transaction, pins: Pins, program: Program, aside: Path) -> None:
    """Move the pin of a link to another target out of the way; the link stays attached meanwhile."""
    pin = pins.program_link(program.name)
    present = _read_link(pin)
    if present is None:
        # Of a device or cgroup that is gone: such a link can be neither updated nor used again.
        detach(pin)
    elif not _same_target(present, program):
        unpin(aside)
        pin.rename(aside)
        transaction.on_failure(lambda: aside.rename(pin))


def _same_target(present: dict[str, Any], program: Program) -> bool:
    if present["hook"] is not program.hook:
        return False
    if program.hook is Hook.CGROUP:
        return bool(present["cgroup"] == cgroups.canonical(program.cgroup or ""))
    same_direction = program.hook is Hook.XDP or present["direction"] == program.direction
    return bool(present["device"] == program.device and same_direction)


def _attach_none(job: _Put) -> None:
    pass


def _attach_to_xdp(job: _Put) -> None:
    program = job.program
    attach_xdp(job.transaction, job.fd, existing(links(), program.device), program.mode, job.pin)


def _attach_to_tc(job: _Put) -> None:
    program = job.program
    link = existing(links(), program.device)
    if has("tcx"):
        _update_or_create(job, link.index, tc.TCX[program.direction])
        return
    tc.attach_filter(job.transaction, program.name, job.fd, link.index, program.direction)


def _attach_to_cgroup(job: _Put) -> None:
    directory = job.transaction.hold(cgroups.open_directory(job.program.cgroup or ""))
    _update_or_create(job, directory, job.attach_type)


_ATTACH: dict[Hook, Callable[[_Put], None]] = {
    Hook.NONE: _attach_none,
    Hook.XDP: _attach_to_xdp,
    Hook.TC: _attach_to_tc,
    Hook.CGROUP: _attach_to_cgroup,
}


def _update_or_create(job: _Put, target: int, attach_type: int) -> None:
    fd = libbpf.pinned(job.pin)
    if fd is not None:
        job.transaction.hold(fd)
        update_link(job.transaction, fd, job.fd)
        return
    created = job.transaction.hold(libbpf.link_create(job.fd, target, attach_type))
    pin_link(created, job.pin)
    job.transaction.on_failure(lambda: detach(job.pin))


def _pin(pins: Pins, program: Program, fd: int) -> None:
    """Pin the program under its name; the pin of another place is linked to from there."""
    place = pins.program(program.name)
    staged = pins.staged / place.name
    unpin(staged)
    before = place.readlink() if place.is_symlink() else None
    chosen = Path(program.pin) if program.pin and Path(program.pin) != place else None
    if chosen is None:
        libbpf.pin(fd, staged)
    else:
        if chosen.exists() and chosen != before:
            raise RefusedError(f"{chosen} is pinned already, and not as program {program.name}")
        _pin_elsewhere(fd, chosen)
        staged.symlink_to(chosen)
    staged.rename(place)
    if before is not None and before != chosen:
        unpin(before)


def _pin_elsewhere(fd: int, chosen: Path) -> None:
    ensure_bpffs(chosen.parent)
    chosen.parent.mkdir(parents=True, exist_ok=True)
    temporary = chosen.with_name(f"{chosen.name}_staged")
    unpin(temporary)
    libbpf.pin(fd, temporary)
    temporary.rename(chosen)


# --- removing, reading ---


def remove(pins: Pins, name: str) -> None:
    """Detach and unpin."""
    detach(pins.program_link(name))
    _remove_filters(name, keep=None)
    place = pins.program(name)
    if place.is_symlink():
        unpin(place.readlink())
    unpin(place)


def _remove_filters(name: str, keep: Optional[Program]) -> None:
    """Remove the cls_bpf filters of that name, but for the one that `keep` stands for."""
    kept_device = keep.device if keep is not None and keep.hook is Hook.TC and not has("tcx") else None
    names = dict(socket.if_nameindex())
    for found in list(clsact.everywhere()):
        kept = keep is not None and (names.get(found.index), found.direction) == (kept_device, keep.direction)
        if found.name == name and not kept:
            clsact.remove(found)


def read(pins: Pins) -> dict[str, UserProgram]:
    """Name -> program, as pinned and attached. `object_path` is "": the kernel does not know it.

    What is attached but no longer pinned as a program, or the reverse, shows as a difference: tag "" or hook none.
    """
    names = {path.name for path in _listed(pins.programs)}
    names |= {path.name[len("program_") :] for path in _listed(pins.links) if path.name.startswith("program_")}
    filters = {} if has("tcx") else {each.name: each for each in clsact.everywhere() if not clsact.is_own(each.name)}
    names = {name.replace("~", ".") for name in names} | filters.keys()
    return {name: _read(pins, name, filters.get(name)) for name in sorted(names)}


def _listed(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _read(pins: Pins, name: str, attached: Optional[clsact.Filter]) -> UserProgram:
    target = _read_link(pins.program_link(name)) or _read_filter(attached) or {"hook": Hook.NONE, "program": 0}
    program_id = target.pop("program")
    place = pins.program(name)
    pin = str(place.readlink()) if place.is_symlink() else None
    fd = libbpf.pinned(place)
    if fd is None:
        return UserProgram(Program(name, "", pin=pin, **target), "")
    with libbpf.closing(fd):
        pinned_id = libbpf.program_info(fd).id
        # Attached is what counts; another program than the pinned one is shown by its own tag.
        with libbpf.closing(libbpf.program_by_id(program_id or pinned_id)) as shown:
            info, function = libbpf.program_info(shown), libbpf.function_name(shown)
            return UserProgram(Program(name, "", function=function, pin=pin, **target), info.tag, _data(shown))


def _read_link(pin: Path) -> Optional[dict[str, Any]]:
    """Fields of `Program` that a pinned link tells, and `program`, the id; None without a live link."""
    fd = libbpf.pinned(pin)
    if fd is None:
        return None
    with libbpf.closing(fd):
        info = libbpf.link_info(fd)
    if info.type == LinkType.CGROUP:
        path = cgroups.path_of(info.cgroup_id)
        return {"hook": Hook.CGROUP, "cgroup": path, "program": info.prog_id} if path else None
    link = next((one for one in links().values() if one.index == info.ifindex), None)
    if link is None:
        return None
    if info.type == LinkType.XDP:
        return {"hook": Hook.XDP, "device": link.name, "mode": link.xdp_mode, "program": info.prog_id}
    direction = _DIRECTIONS[info.attach_type]
    return {"hook": Hook.TC, "device": link.name, "direction": direction, "program": info.prog_id}


def _read_filter(found: Optional[clsact.Filter]) -> Optional[dict[str, Any]]:
    device = dict(socket.if_nameindex()).get(found.index) if found is not None else None
    if found is None or device is None:
        return None
    return {"hook": Hook.TC, "device": device, "direction": found.direction, "program": found.program}
