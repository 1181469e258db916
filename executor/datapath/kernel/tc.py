"""The datapath's own programs at tc: by pinned TCX links, or cls_bpf filters where the kernel has no TCX (before 6.6).

A program is known by a name, once a device and direction, and is replaced there in place.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from datapath.kernel import clsact, libbpf
from datapath.kernel.abi import AttachType
from datapath.kernel.attachments import Transaction, detach, pin_link, update_link
from datapath.kernel.devices import Link, links
from datapath.kernel.features import has
from datapath.kernel.pins import Pins, unpin

INGRESS, EGRESS = "ingress", "egress"
TCX = {INGRESS: AttachType.TCX_INGRESS, EGRESS: AttachType.TCX_EGRESS}


@dataclass(frozen=True)
class Attached:
    """A program that the kernel runs for us."""

    index: int
    """Of the device."""
    direction: str
    program: int
    """Its id."""


def attach(transaction: Transaction, pins: Pins, name: str, program: int, *, link: Link, direction: str) -> None:
    """Attach the program with file descriptor `program`, in place of the one of that name."""
    if has("tcx"):
        _attach_link(transaction, pins, name, program, link=link, direction=direction)
    else:
        attach_filter(transaction, clsact.own(name), program, link.index, direction)


def _attach_link(transaction: Transaction, pins: Pins, name: str, program: int, *, link: Link, direction: str) -> None:
    pin = pins.tc_link(name, direction, link.name)
    fd = libbpf.pinned(pin)
    if fd is not None:
        transaction.hold(fd)
        if libbpf.link_info(fd).ifindex == link.index:
            update_link(transaction, fd, program)
            return
        # Of a device that is gone and whose name this one has now.
        unpin(pin)
    created = transaction.hold(libbpf.link_create(program, link.index, TCX[direction]))
    pin_link(created, pin)
    transaction.on_failure(lambda: detach(pin))


def attach_filter(transaction: Transaction, name: str, program: int, index: int, direction: str) -> None:
    """Attach by cls_bpf, in place of the filter of that name on this device."""
    old = clsact.find(name, index, direction)
    clsact.put(name, index, direction, program)
    if old is None:
        transaction.on_failure(lambda: _remove_filter(name, index, direction))
    else:
        before = transaction.hold(libbpf.program_by_id(old.program))
        transaction.on_failure(lambda: clsact.put(name, index, direction, before))


def _remove_filter(name: str, index: int, direction: str) -> None:
    found = clsact.find(name, index, direction)
    if found is not None:
        clsact.remove(found)


def attached(pins: Pins, name: str) -> list[Attached]:
    """Where programs of that name are attached; devices that are gone left out."""
    if not has("tcx"):
        own = clsact.own(name)
        return [Attached(each.index, each.direction, each.program) for each in clsact.everywhere() if each.name == own]
    found = []
    for direction, pin in pins.tc_links(name, TCX):
        fd = libbpf.pinned(pin)
        if fd is None:
            continue
        with libbpf.closing(fd):
            info = libbpf.link_info(fd)
        if info.ifindex:
            found.append(Attached(info.ifindex, direction, info.prog_id))
    return found


def detach_all(pins: Pins, name: str, keep: Container[str] = ()) -> None:
    """Detach programs of that name but from the devices of `keep`, which are names."""
    names = {link.index: link.name for link in links().values()}
    if not has("tcx"):
        own = clsact.own(name)
        for found in list(clsact.everywhere()):
            if found.name == own and names.get(found.index) not in keep:
                clsact.remove(found)
        return
    for _, pin in pins.tc_links(name, TCX):
        fd = libbpf.pinned(pin)
        index = 0
        if fd is not None:
            with libbpf.closing(fd):
                index = libbpf.link_info(fd).ifindex
        if names.get(index) not in keep:
            detach(pin)
