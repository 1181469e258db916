"""The load balancer's program: loaded on its maps, attached everywhere at once, read back.

It runs at XDP or, from another object that uses the same maps, at tc ingress.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from datapath.compile.layouts import Config
from datapath.kernel import abi, libbpf, tc
from datapath.kernel.abi import ProgramType
from datapath.kernel.attachments import Transaction, attach_xdp, describe_program, detach, existing
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.devices import Link, links
from datapath.kernel.maps import Maps, map_names
from datapath.kernel.objects import LOAD_BALANCER, LOAD_BALANCER_TC, ObjectSource
from datapath.kernel.pins import Pins, unpin
from datapath.state.kernel_state import LoadBalancer

PROGRAM = "xdp_lb"
TC_PROGRAM = "tc_lb"
CONFIG = ".rodata.config"
CAPTURE = ".rodata.capture"
_MULTI_BUFFER = Config.multi_buffer.offset
_TC = "tc"
"""The mode of an attachment that is not XDP's."""


def swap(pins: Pins, objects: ObjectSource, maps: Maps, config: bytes, attachments: Mapping[str, str]) -> None:
    """Load the program with `config` on the staged and pinned maps, replace it on every device, make it permanent.

    On any failure the program and the maps that were in service are so again, and the stage is empty.

    Raises:
        BpfError: with the verifier's log, when it rejects the program.
        RefusedError: a device is missing or carries somebody else's program.
    """
    pins.create()
    at_tc = _TC in attachments.values()
    staged_program = pins.staged / pins.load_balancer.name
    name = LOAD_BALANCER_TC if at_tc else LOAD_BALANCER
    try:
        with BpfObject(objects.read(name), name) as obj, Transaction() as transaction:
            program = load(obj, maps, config, TC_PROGRAM if at_tc else PROGRAM)
            devices = links()
            unpin(staged_program)
            libbpf.pin(program, staged_program)
            for device, mode in sorted(attachments.items()):
                _attach(transaction, pins, program, existing(devices, device), mode)
            maps.catch_up()
            maps.commit()
            staged_program.rename(pins.tc_load_balancer if at_tc else pins.load_balancer)
    except BaseException:
        maps.discard()
        raise
    _leave(pins, attachments)


def _attach(transaction: Transaction, pins: Pins, program: int, link: Link, mode: str) -> None:
    if mode == _TC:
        tc.attach(transaction, pins, TC_PROGRAM, program, link=link, direction=tc.INGRESS)
    else:
        attach_xdp(transaction, program, link, mode, pins.load_balancer_link(link.name))


def _leave(pins: Pins, attachments: Mapping[str, str]) -> None:
    """Detach from where the load balancer is not wanted; what takes its place is attached already."""
    wanted = {pins.load_balancer_link(device) for device, mode in attachments.items() if mode != _TC}
    for pin in pins.load_balancer_links():
        if pin not in wanted:
            detach(pin)
    at_tc = {device for device, mode in attachments.items() if mode == _TC}
    tc.detach_all(pins, TC_PROGRAM, keep=at_tc)
    unpin(pins.load_balancer if at_tc else pins.tc_load_balancer)


def load(obj: BpfObject, maps: Maps, config: bytes, function: str, capture: bytes = b"") -> int:
    """Load a program of the object on the staged and pinned maps; its file descriptor, which is the object's.

    With `capture` (`datapath.compile.layouts.Capture`) it copies frames.
    """
    with ExitStack() as stack:
        for name in map_names(obj):
            obj.reuse_map(name, stack.enter_context(maps.opened(name)))
        set_config(obj, function, config)
        if capture:
            obj.set_initial_value(CAPTURE, capture)
        obj.load_only((function,))
        obj.load()
    return obj.program_fd(function)


def set_config(obj: BpfObject, function: str, config: bytes) -> None:
    """Have the program be loaded with this configuration."""
    obj.set_initial_value(CONFIG, config)
    if config[_MULTI_BUFFER : _MULTI_BUFFER + 1] == b"\1":
        obj.set_program_flags(function, abi.BPF_F_XDP_HAS_FRAGS)


def remove(pins: Pins, maps: Maps) -> None:
    """Detach everywhere, unpin program and maps."""
    _leave(pins, {})
    unpin(pins.load_balancer)
    maps.remove()


def recover(pins: Pins, maps: Maps) -> None:
    """Settle what a killed run left: the stage is completed where it is already in service, else emptied."""
    staged = maps.staged_ids()
    if staged and any(staged.keys() & attached.map_ids for attached in _attached(pins)):
        maps.commit()
        _put_in_service(pins, pins.staged / pins.load_balancer.name)
    maps.discard()


def _put_in_service(pins: Pins, staged: Path) -> None:
    fd = libbpf.pinned(staged)
    if fd is not None:
        with libbpf.closing(fd):
            at_tc = libbpf.program_info(fd).type == ProgramType.SCHED_CLS
        staged.rename(pins.tc_load_balancer if at_tc else pins.load_balancer)


@dataclass(frozen=True)
class _Attached:
    at_tc: bool
    ifindex: int
    program_id: int
    tag: str
    map_ids: frozenset[int]


def _attached(pins: Pins) -> list[_Attached]:
    places = [(True, each.index, each.program) for each in tc.attached(pins, TC_PROGRAM)]
    for pin in pins.load_balancer_links():
        fd = libbpf.pinned(pin)
        if fd is not None:
            with libbpf.closing(fd):
                info = libbpf.link_info(fd)
            places.append((False, info.ifindex, info.prog_id))
    found = []
    for at_tc, index, number in places:
        with libbpf.closing(libbpf.program_by_id(number)) as program:
            ids = frozenset(libbpf.program_map_ids(program))
            found.append(_Attached(at_tc, index, number, libbpf.program_info(program).tag, ids))
    return found


def read(pins: Pins, maps: Maps, devices: Optional[Mapping[str, Link]] = None) -> Optional[LoadBalancer]:
    """The load balancer as it is attached, None where neither program nor link is pinned."""
    attached = _attached(pins)
    pinned = {at_tc: _pinned_id(pin) for at_tc, pin in ((False, pins.load_balancer), (True, pins.tc_load_balancer))}
    if not attached and not any(pinned.values()):
        return None
    by_index = {link.index: link for link in (links() if devices is None else devices).values()}
    ours = maps.ids()
    modes: dict[str, str] = {}
    foreign: dict[str, str] = {}
    for one in attached:
        link = by_index.get(one.ifindex)
        if link is None:
            continue
        problem = _problem(one, link, pinned[one.at_tc], ours)
        if link.name in modes:
            problem = "carries the load balancer at XDP and at tc"
        modes[link.name] = _TC if one.at_tc else link.xdp_mode
        if problem:
            foreign[link.name] = problem
    any_pinned = pinned[False] or pinned[True]
    program_id = next((one.program_id for one in attached if one.ifindex in by_index), any_pinned)
    if not program_id:
        program_id = attached[0].program_id
    with libbpf.closing(libbpf.program_by_id(program_id)) as program:
        return LoadBalancer(config_of(program), modes, libbpf.program_info(program).tag, foreign)


def _pinned_id(pin: Path) -> int:
    """Id of a pinned program; 0 where there is none."""
    fd = libbpf.pinned(pin)
    if fd is None:
        return 0
    with libbpf.closing(fd):
        return int(libbpf.program_info(fd).id)


def _problem(one: _Attached, link: Link, pinned_id: int, ours: Mapping[int, str]) -> str:
    if not one.at_tc and link.xdp_program != one.program_id:
        return f"carries {describe_program(link.xdp_program)} instead of the load balancer"
    strangers = [number for number in one.map_ids if number not in ours and not _is_global_data(number)]
    if strangers:
        return f"the program uses maps that are not the pinned ones (ids {', '.join(map(str, sorted(strangers)))})"
    if one.program_id != pinned_id:
        return f"carries {describe_program(one.program_id)} instead of the pinned load balancer (id {pinned_id})"
    return ""


def _is_global_data(number: int) -> bool:
    with libbpf.closing(libbpf.map_by_id(number)) as fd:
        return "." in libbpf.map_info(fd).name


def config_of(program: int) -> bytes:
    """Contents of a loaded program's own `.rodata.config`, b"" where it has none."""
    for number in libbpf.program_map_ids(program):
        with libbpf.closing(libbpf.map_by_id(number)) as fd:
            info = libbpf.map_info(fd)
            if info.name == CONFIG:
                return libbpf.map_lookup(fd, bytes(4), info.value_size) or b""
    return b""
