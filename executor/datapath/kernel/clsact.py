"""tc programs on kernels without TCX (before 6.6): cls_bpf filters of the clsact qdisc.

Our filters are found again by their name. A filter is replaced in place: same priority, same handle.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from datapath.kernel import netlink

_TCMSG = struct.Struct("=BBHiIII")
_CLSACT = 0xFFFF0000
_CLSACT_PARENT = 0xFFFFFFF1
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_TCA_KIND, _TCA_OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_DIRECT_ACTION = 1
_PROTOCOL_ALL = socket.htons(0x0003)
_NAME_PREFIX = "datapath_"


@dataclass(frozen=True)
class Filter:
    """One cls_bpf filter of ours."""

    name: str
    """Name of the user's program, or of one of our own (`own`)."""
    index: int
    direction: str
    handle: int
    info: int
    """Priority in the upper half, protocol in the lower."""
    program: int
    """Id of the program."""


def _ask(kind: int, flags: int, body: bytes, what: str, accepted: tuple[int, ...] = ()) -> None:
    error, _ = netlink.exchange([(kind, flags | netlink.NLM_F_ACK, body)])[0]
    if error and error not in accepted:
        raise OSError(error, f"{what}: {os.strerror(error)}")


def put(name: str, index: int, direction: str, program: int) -> None:
    """Attach the program with file descriptor `program`, replacing the filter of that name."""
    qdisc = _TCMSG.pack(0, 0, 0, index, _CLSACT, _CLSACT_PARENT, 0) + netlink.attribute(_TCA_KIND, b"clsact\0")
    create = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    _ask(netlink.RTM_NEWQDISC, create, qdisc, "adding the clsact qdisc", (errno.EEXIST,))
    old = find(name, index, direction)
    options = b"".join(
        (
            netlink.attribute(_BPF_FD, struct.pack("=I", program)),
            netlink.attribute(_BPF_NAME, f"{_NAME_PREFIX}{name}".encode() + b"\0"),
            netlink.attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION)),
        )
    )
    handle, info = (old.handle, old.info) if old else (0, _PROTOCOL_ALL)
    body = _TCMSG.pack(0, 0, 0, index, handle, _PARENTS[direction], info)
    body += netlink.attribute(_TCA_KIND, b"bpf\0") + netlink.attribute(_TCA_OPTIONS, options)
    how = netlink.NLM_F_CREATE | (netlink.NLM_F_REPLACE if old else netlink.NLM_F_EXCL)
    _ask(netlink.RTM_NEWTFILTER, how, body, f"attaching {name} to tc {direction}")


def remove(found: Filter) -> None:
    """Detach; the clsact qdisc goes with its last filter."""
    body = _TCMSG.pack(0, 0, 0, found.index, found.handle, _PARENTS[found.direction], found.info)
    body += netlink.attribute(_TCA_KIND, b"bpf\0")
    _ask(netlink.RTM_DELTFILTER, 0, body, f"detaching {found.name}", (errno.ENOENT, errno.ENODEV))
    if not any(_dump(found.index, direction) for direction in _PARENTS):
        qdisc = _TCMSG.pack(0, 0, 0, found.index, _CLSACT, _CLSACT_PARENT, 0)
        gone = (errno.ENOENT, errno.ENODEV, errno.EINVAL)
        _ask(netlink.RTM_DELQDISC, 0, qdisc, "removing the clsact qdisc", gone)


def find(name: str, index: int, direction: str) -> Optional[Filter]:
    """Our filter of that name on a device and direction."""
    return next((found for found in filters(index, direction) if found.name == name), None)


def own(name: str) -> str:
    """Name of a filter that is the datapath's own: no user's program can have it."""
    return f".{name}"


def is_own(name: str) -> bool:
    """Whether `own` made that name."""
    return name.startswith(".")


def everywhere() -> Iterator[Filter]:
    """Our filters of all devices."""
    for index, _ in socket.if_nameindex():
        for direction in _PARENTS:
            yield from filters(index, direction)


def filters(index: int, direction: str) -> Iterator[Filter]:
    """Our filters of a device and direction."""
    for body in _dump(index, direction):
        handle, info = struct.unpack_from("=I", body, 8)[0], struct.unpack_from("=I", body, 16)[0]
        options = netlink.attributes(netlink.attributes(body[_TCMSG.size :]).get(_TCA_OPTIONS, b""))
        name = options.get(_BPF_NAME, b"").rstrip(b"\0").decode(errors="replace")
        if name.startswith(_NAME_PREFIX) and _BPF_ID in options:
            program = struct.unpack("=I", options[_BPF_ID])[0]
            yield Filter(name[len(_NAME_PREFIX) :], index, direction, handle, info, program)


def _dump(index: int, direction: str) -> list[bytes]:
    try:
        return netlink.dump(netlink.RTM_GETTFILTER, _TCMSG.pack(0, 0, 0, index, 0, _PARENTS[direction], 0))
    except OSError as e:
        # The device has no clsact qdisc, or is gone.
        if e.errno in (errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise
