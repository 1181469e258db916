"""The load balancer's program: loaded on its maps, attached everywhere at once, read back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Optional

from datapath.kernel import libbpf
from datapath.kernel.attachments import Transaction, attach_xdp, describe_program, detach, existing
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.devices import Link, links
from datapath.kernel.maps import Maps, map_names
from datapath.kernel.objects import LOAD_BALANCER, ObjectSource
from datapath.kernel.pins import Pins, unpin
from datapath.state.kernel_state import LoadBalancer

PROGRAM = "xdp_lb"
CONFIG = ".rodata.config"


def swap(pins: Pins, objects: ObjectSource, maps: Maps, config: bytes, attachments: Mapping[str, str]) -> None:
    """Load the program with `config` on the staged and pinned maps, replace it on every device, make it permanent.

    On any failure the program and the maps that were in service are so again, and the stage is empty.

    Raises:
        BpfError: with the verifier's log, when it rejects the program.
        RefusedError: a device is missing or carries somebody else's program.
    """
    pins.create()
    staged_program = pins.staged / pins.load_balancer.name
    try:
        with BpfObject(objects.read(), LOAD_BALANCER) as obj, Transaction() as transaction:
            program = _load(obj, maps, config)
            devices = links()
            unpin(staged_program)
            libbpf.pin(program, staged_program)
            for device, mode in sorted(attachments.items()):
                link = existing(devices, device)
                attach_xdp(transaction, program, link, mode, pins.load_balancer_link(device))
            maps.catch_up()
            maps.commit()
            staged_program.rename(pins.load_balancer)
    except BaseException:
        maps.discard()
        raise
    wanted = {pins.load_balancer_link(device) for device in attachments}
    for pin in pins.load_balancer_links():
        if pin not in wanted:
            detach(pin)


def _load(obj: BpfObject, maps: Maps, config: bytes) -> int:
    with ExitStack() as stack:
        for name in map_names(obj):
            obj.reuse_map(name, stack.enter_context(maps.opened(name)))
        obj.set_initial_value(CONFIG, config)
        obj.load_only((PROGRAM,))
        obj.load()
    return obj.program_fd(PROGRAM)


def remove(pins: Pins, maps: Maps) -> None:
    """Detach everywhere, unpin program and maps."""
    for pin in pins.load_balancer_links():
        detach(pin)
    unpin(pins.load_balancer)
    maps.remove()


def recover(pins: Pins, maps: Maps) -> None:
    """Settle what a killed run left: the stage is completed where it is already in service, else emptied."""
    staged = maps.staged_ids()
    if staged and any(staged.keys() & attached.map_ids for attached in _attached(pins)):
        maps.commit()
        program = pins.staged / pins.load_balancer.name
        if program.exists():
            program.rename(pins.load_balancer)
    maps.discard()


@dataclass(frozen=True)
class _Attached:
    pin_name: str
    ifindex: int
    program_id: int
    tag: str
    map_ids: frozenset[int]


def _attached(pins: Pins) -> list[_Attached]:
    found = []
    for pin in pins.load_balancer_links():
        fd = libbpf.pinned(pin)
        if fd is None:
            continue
        with libbpf.closing(fd):
            info = libbpf.link_info(fd)
        with libbpf.closing(libbpf.program_by_id(info.prog_id)) as program:
            ids = frozenset(libbpf.program_map_ids(program))
            tag = libbpf.program_info(program).tag
        found.append(_Attached(pin.name, info.ifindex, info.prog_id, tag, ids))
    return found


def read(pins: Pins, maps: Maps, devices: Optional[Mapping[str, Link]] = None) -> Optional[LoadBalancer]:
    """The load balancer as it is attached, None where neither program nor link is pinned."""
    attached = _attached(pins)
    fd = libbpf.pinned(pins.load_balancer)
    if fd is not None:
        with libbpf.closing(fd):
            pinned_id = libbpf.program_info(fd).id
    elif attached:
        pinned_id = 0
    else:
        return None
    by_index = {link.index: link for link in (links() if devices is None else devices).values()}
    ours = maps.ids()
    modes, foreign = {}, {}
    for one in attached:
        link = by_index.get(one.ifindex)
        if link is None:
            continue
        modes[link.name] = link.xdp_mode
        problem = _problem(one, link, pinned_id, ours)
        if problem:
            foreign[link.name] = problem
    program_id = next((one.program_id for one in attached if one.ifindex in by_index), pinned_id)
    with libbpf.closing(libbpf.program_by_id(program_id)) as program:
        return LoadBalancer(config_of(program), modes, libbpf.program_info(program).tag, foreign)


def _problem(one: _Attached, link: Link, pinned_id: int, ours: Mapping[int, str]) -> str:
    if link.xdp_program != one.program_id:
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
