"""The program that gives BBR to the host's own sockets, at the root of cgroup v2."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Optional

from datapath.kernel import cgroups, libbpf
from datapath.kernel.abi import AttachType
from datapath.kernel.attachments import Transaction, detach, pin_link, update_link
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.errors import RefusedError
from datapath.kernel.load_balancer import CONFIG, config_of
from datapath.kernel.objects import HOST_BBR, ObjectSource
from datapath.kernel.pins import Pins

_LINK = "sock_bbr"
_SO_NETNS_COOKIE = 71


def netns_cookie() -> int:
    """What tells this network namespace apart from all others; 0 on kernels that do not say it (before 5.14)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        try:
            return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError:
            return 0


def put(pins: Pins, objects: ObjectSource, config: bytes) -> None:
    """Load the program with `config`, attach it or replace the one that is attached.

    Raises:
        BpfError: with the verifier's log, when it rejects the program.
        RefusedError: there is no cgroup v2.
    """
    pins.create()
    _load_module()
    with BpfObject(objects.read(HOST_BBR), HOST_BBR) as obj, Transaction() as transaction:
        (program,) = obj.programs()
        obj.set_initial_value(CONFIG, config)
        obj.load()
        pin, fd = pins.links / _LINK, obj.program_fd(program.name)
        present = libbpf.pinned(pin)
        if present is not None:
            transaction.hold(present)
            if libbpf.link_info(present).cgroup_id == _root_id():
                update_link(transaction, present, fd)
                return
            detach(pin)
        directory = transaction.hold(cgroups.open_directory(str(_root())))
        pin_link(transaction.hold(libbpf.link_create(fd, directory, AttachType.CGROUP_SOCK_OPS)), pin)


def read(pins: Pins) -> Optional[bytes]:
    """Configuration of the program; b"" where it is attached elsewhere or nowhere, None where it is not there."""
    fd = libbpf.pinned(pins.links / _LINK)
    if fd is None:
        return None
    with libbpf.closing(fd):
        info = libbpf.link_info(fd)
        if info.cgroup_id != _root_id():
            return b""
        with libbpf.closing(libbpf.program_by_id(info.prog_id)) as program:
            return config_of(program)


def remove(pins: Pins) -> None:
    """Detach; connections that have BBR keep it."""
    detach(pins.links / _LINK)


def _load_module() -> None:
    """Programs get no module loaded; a socket of ours does."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")


def _root() -> Path:
    """In a hybrid hierarchy it is not at /sys/fs/cgroup."""
    found = cgroups.roots()
    if not found:
        raise RefusedError("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
    return found[0]


def _root_id() -> int:
    """As links tell it; 0 where there is none."""
    found = cgroups.roots()
    return found[0].stat().st_ino if found else 0
