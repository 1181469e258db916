"""Attaching XDP programs by pinned links, all devices or none.

A link is replaced in place, so no packet goes unseen; it survives its maker because it is pinned. Every step has an
undo, which is what keeps the old program in service when a later device refuses the new one.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional

from datapath.kernel import abi, libbpf
from datapath.kernel.abi import AttachType
from datapath.kernel.devices import GENERIC, NATIVE, Link, driver
from datapath.kernel.errors import BpfError, RefusedError
from datapath.kernel.pins import unpin

_FLAGS = {NATIVE: abi.XDP_FLAGS_DRV_MODE, GENERIC: abi.XDP_FLAGS_SKB_MODE}


class Transaction:
    """A context whose steps are undone, last first, when it ends with an exception.

    `hold` keeps file descriptors open until the end, for the undo steps to use.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []
        self._held = ExitStack()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        with self._held:
            if error is not None:
                for step in reversed(self._steps):
                    step()

    def hold(self, fd: int) -> int:
        """Close `fd` when the transaction ends."""
        return self._held.enter_context(libbpf.closing(fd))

    def on_failure(self, step: Callable[[], object]) -> None:
        """Run `step` if the transaction fails."""
        self._steps.append(step)


def existing(devices: Mapping[str, Link], name: Optional[str]) -> Link:
    """The device of that name, else RefusedError."""
    link = devices.get(name or "")
    if link is None:
        raise RefusedError(f"there is no device {name}")
    return link


def attach_xdp(transaction: Transaction, program: int, link: Link, mode: str, pin: Path) -> None:
    """Attach `program` to a device (native or generic); the link pinned at `pin` is updated in place where it fits.

    Raises:
        RefusedError: the device carries a program that is not this link's.
        BpfError: the kernel or the driver refuses.
    """
    fd = libbpf.pinned(pin)
    if fd is None:
        _create(transaction, program, link, mode, pin)
        return
    transaction.hold(fd)
    info = libbpf.link_info(fd)
    if info.ifindex == link.index and link.xdp_mode == mode:
        update_link(transaction, fd, program)
        return
    # A dead link (its device is gone), or one of another mode, which a link cannot change.
    old = transaction.hold(libbpf.program_by_id(info.prog_id))
    detach(pin)
    if info.ifindex == link.index:
        mode_before = link.xdp_mode
        free = dataclasses.replace(link, xdp_mode="", xdp_program=0)
        transaction.on_failure(lambda: _attach(old, free, mode_before, pin))
        link = free
    _create(transaction, program, link, mode, pin)


def update_link(transaction: Transaction, fd: int, program: int) -> None:
    """Replace the program of a link that the transaction holds open."""
    old = transaction.hold(libbpf.program_by_id(libbpf.link_info(fd).prog_id))
    libbpf.link_update(fd, program)
    transaction.on_failure(lambda: libbpf.link_update(fd, old))


def _create(transaction: Transaction, program: int, link: Link, mode: str, pin: Path) -> None:
    if link.xdp_program:
        raise RefusedError(_occupied(link, pin.parent))
    _attach(program, link, mode, pin)
    transaction.on_failure(lambda: detach(pin))


def _occupied(link: Link, links_directory: Path) -> str:
    text = f"{link.name} carries {describe_program(link.xdp_program)} in {link.xdp_mode} mode, "
    for pin in sorted(links_directory.iterdir()):
        fd = libbpf.pinned(pin)
        if fd is not None:
            with libbpf.closing(fd):
                if libbpf.link_info(fd).prog_id == link.xdp_program:
                    return text + f"managed here as {pin.name}; a device carries one XDP program"
    return text + f"which is not managed here; remove it (ip link set dev {link.name} xdp off) or leave {link.name} out"


def _attach(program: int, link: Link, mode: str, pin: Path) -> None:
    try:
        fd = libbpf.link_create(program, link.index, AttachType.XDP, _FLAGS[mode])
    except BpfError as e:
        number = e.errno or 0
        hint = f"; driver {driver(link.name) or 'none'}, MTU {link.mtu}" if mode == NATIVE else ""
        if number == errno.EOPNOTSUPP and mode == NATIVE:
            hint += ": it has no native XDP"
        raise BpfError(number, f"attaching to {link.name} in {mode} mode{hint}") from e
    with libbpf.closing(fd):
        pin_link(fd, pin)


def pin_link(fd: int, pin: Path) -> None:
    """Pin a new link; where that fails the link is not left attached."""
    try:
        libbpf.pin(fd, pin)
    except OSError:
        libbpf.link_detach(fd)
        raise


def detach(pin: Path) -> None:
    """Detach a pinned link at once (the last unpinning would do so some time later) and remove its pin."""
    fd = libbpf.pinned(pin)
    if fd is not None:
        with libbpf.closing(fd):
            try:
                libbpf.link_detach(fd)
            except BpfError as e:
                # Its device or cgroup is gone: nothing is attached any more.
                if e.errno not in (errno.ENOLINK, errno.EINVAL):
                    raise
    unpin(pin)


def describe_program(number: int) -> str:
    """A program for people: "XDP program filter (id 17, tag 0123456789abcdef)"."""
    try:
        with libbpf.closing(libbpf.program_by_id(number)) as fd:
            info = libbpf.program_info(fd)
            return f"XDP program {info.name or 'without name'} (id {number}, tag {info.tag})"
    except OSError as e:
        return f"XDP program with id {number} ({os.strerror(e.errno or 0)})"
