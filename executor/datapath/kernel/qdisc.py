"""Queueing disciplines at the root of devices: fq, and mq of it where a device sends by several queues.

Ours are known by their handle. They take the place of the kernel's own defaults alone, which return when ours go.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from datapath.compile.bandwidth import FLOW_PACKETS, FQ, HORIZON, MQ, PACKETS
from datapath.kernel import netlink
from datapath.state.kernel_state import Qdisc

HANDLE = 0xEBF0
_TCMSG = struct.Struct("=BBHiIII")
_ROOT = 0xFFFFFFFF
_CLSACT_PARENT = 0xFFFFFFF1
_TCA_KIND, _TCA_OPTIONS = 1, 2
_NLA_F_NESTED = 0x8000
_PACKETS, _FLOW_PACKETS, _BUCKETS_LOG, _HORIZON, _HORIZON_DROP = 1, 2, 8, 14, 15
"""`TCA_FQ_...`"""
_BUCKETS = 15
_FQ_OPTIONS = {
    _PACKETS: PACKETS,
    _FLOW_PACKETS: FLOW_PACKETS,
    _BUCKETS_LOG: _BUCKETS,
    _HORIZON: int(HORIZON * 1e6),
}


@dataclass(frozen=True)
class _Found:
    index: int
    handle: int
    parent: int
    kind: str
    options: Mapping[int, bytes]

    @property
    def as_wanted(self) -> bool:
        """Whether it is fq with our options."""
        values = {name: int.from_bytes(self.options.get(name, b""), sys.byteorder) for name in _FQ_OPTIONS}
        return self.kind == "fq" and values == _FQ_OPTIONS


def read() -> dict[str, Qdisc]:
    """Device -> its root qdisc."""
    names = dict(socket.if_nameindex())
    found = _dump()
    leaves: dict[int, list[_Found]] = {}
    for each in found:
        if each.parent not in (_ROOT, _CLSACT_PARENT) and each.parent >> 16 == HANDLE:
            leaves.setdefault(each.index, []).append(each)
    return {
        names[each.index]: _describe(each, leaves.get(each.index, []))
        for each in found
        if each.parent == _ROOT and each.index in names
    }


def _describe(root: _Found, leaves: list[_Found]) -> Qdisc:
    major = root.handle >> 16
    if major == 0:
        return Qdisc(root.kind, "kernel")
    if major != HANDLE:
        return Qdisc(f"{root.kind} {major:x}:", "other")
    if root.kind == "mq":
        right = sum(leaf.as_wanted for leaf in leaves)
        return Qdisc(MQ if right == len(leaves) else f"mq, {right} of {len(leaves)} leaves {FQ}", "ours")
    return Qdisc(FQ if root.as_wanted else f"{root.kind} with other options", "ours")


def put(device: str, text: str) -> None:
    """Have `text` (FQ or MQ) at the device's root. Raises OSError."""
    index = socket.if_nametoindex(device)
    kind = "fq" if text == FQ else "mq"
    if any(each.index == index and each.handle == HANDLE << 16 and each.kind != kind for each in _dump()):
        remove(device)
    if text == FQ:
        _replace(index, _ROOT, HANDLE << 16, "fq", _fq_options(), device)
        return
    _replace(index, _ROOT, HANDLE << 16, "mq", b"", device)
    # The kernel gives leaves to the queues that are in use.
    for leaf in _dump():
        if leaf.index == index and leaf.parent >> 16 == HANDLE and not leaf.as_wanted:
            _replace(index, leaf.parent, 0, "fq", _fq_options(), device)


def remove(device: str) -> None:
    """Remove ours, where it is there; the kernel puts its default in its place."""
    try:
        index = socket.if_nametoindex(device)
    except OSError:
        return
    if not any((each.index, each.parent, each.handle) == (index, _ROOT, HANDLE << 16) for each in _dump()):
        return
    body = _TCMSG.pack(0, 0, 0, index, HANDLE << 16, _ROOT, 0)
    _ask(netlink.RTM_DELQDISC, 0, body, f"removing the qdisc of {device}", (errno.ENOENT, errno.ENODEV))


def _fq_options() -> bytes:
    options = {**_FQ_OPTIONS, _HORIZON_DROP: 1}
    sizes = {_HORIZON_DROP: "=B"}
    return b"".join(
        netlink.attribute(name, struct.pack(sizes.get(name, "=I"), value)) for name, value in options.items()
    )


def _replace(index: int, parent: int, handle: int, kind: str, options: bytes, device: str) -> None:  # noqa: PLR0917
    body = _TCMSG.pack(0, 0, 0, index, handle, parent, 0) + netlink.attribute(_TCA_KIND, kind.encode() + b"\0")
    if options:
        body += netlink.attribute(_TCA_OPTIONS | _NLA_F_NESTED, options)
    _ask(netlink.RTM_NEWQDISC, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, body, f"qdisc {kind} at {device}")


def _ask(kind: int, flags: int, body: bytes, what: str, accepted: tuple[int, ...] = ()) -> None:
    error, words = netlink.explained((kind, flags, body))
    if error and error not in accepted:
        raise OSError(error, f"{what}: {words or os.strerror(error)}")


def _dump() -> list[_Found]:
    found = []
    for body in netlink.dump(netlink.RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, handle, parent, _ = _TCMSG.unpack_from(body)
        attributes = netlink.attributes(body[_TCMSG.size :])
        kind = attributes.get(_TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
        options = netlink.attributes(attributes.get(_TCA_OPTIONS, b"")) if kind == "fq" else {}
        found.append(_Found(index, handle, parent, kind, options))
    return found
