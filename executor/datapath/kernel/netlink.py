"""Routing netlink: pyroute2 for everything, and a raw pipeline for what comes by the ten thousand.

pyroute2 spends a fraction of a millisecond on each message and waits for each answer; route look-ups and neighbours
of 20,000 backends need one write and one read for many messages. pyroute2's synchronous API starts an event loop of
its own, so nothing here may be called from a thread that runs one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

NETLINK_ROUTE, NETLINK_GENERIC = 0, 16
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_GETLINK, RTM_SETLINK, RTM_GETADDR, RTM_GETROUTE = 18, 19, 22, 26
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_ROOT_MATCH = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSGERR_ATTR_MSG = 1
_WINDOW = 128
"""Messages in flight: their answers, at most a page each with the kernel's own overhead, fit the receive buffer."""
_RECEIVE_BUFFER = 1 << 20
_SO_RCVBUFFORCE = 33
_TIMEOUT = 30.0
"""Seconds that the kernel may take for one answer."""
_ATTRIBUTE_TYPE = 0x3FFF

Request = tuple[int, int, bytes]
"""Message type, flags besides NLM_F_REQUEST, body (the family's header and its attributes)."""


def iproute() -> Any:
    """A pyroute2 `IPRoute` (a context manager) in the current network namespace.

    Imported here: it takes a fifth of a second that most commands need not spend.
    """
    return importlib.import_module("pyroute2").IPRoute()


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + b"\0" * (-len(data) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes of a message's body behind the family's header; the last of a kind wins."""
    found = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _ATTRIBUTE_TYPE] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _open(protocol: int = NETLINK_ROUTE) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    # The kernel drops answers that find no room, and nobody would send them again.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    sock.settimeout(_TIMEOUT)
    return sock


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def exchange(requests: Sequence[Request], protocol: int = NETLINK_ROUTE) -> list[tuple[int, bytes]]:
    """Send requests that are answered by one message each; answers in the order of the requests.

    Returns:
        (errno, body): errno 0 and the answer's body (empty for a plain acknowledgement), or the kernel's refusal.
    """
    answers: list[tuple[int, bytes]] = [(0, b"")] * len(requests)
    with closing(_open(protocol)) as sock:
        for start in range(0, len(requests), _WINDOW):
            window = requests[start : start + _WINDOW]
            sock.send(b"".join(_packed(request, start + index) for index, request in enumerate(window)))
            pending = len(window)
            while pending:
                for kind, sequence, body in _messages(sock.recv(1 << 20)):
                    answers[sequence] = (-struct.unpack_from("=i", body)[0], b"") if kind == _NLMSG_ERROR else (0, body)
                    pending -= 1
    return answers


def _packed(request: Request, sequence: int) -> bytes:
    kind, flags, body = request
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, sequence, 0) + body


def explained(request: Request) -> tuple[int, str]:
    """Send a request that is acknowledged: (errno, the kernel's own words about a refusal, "" where it has none)."""
    with closing(_open()) as sock:
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            sock.setsockopt(_SOL_NETLINK, option, 1)
        kind, flags, body = request
        sock.send(_packed((kind, flags | NLM_F_ACK, body), 1))
        _, _, answer = next(_messages(sock.recv(1 << 16)))
    words = attributes(answer[4 + _HEADER.size :]).get(_NLMSGERR_ATTR_MSG, b"")
    return -struct.unpack_from("=i", answer)[0], words.rstrip(b"\0").decode(errors="replace")


def dump(kind: int, body: bytes) -> list[bytes]:
    """Bodies of all messages that a dump request returns.

    Raises:
        OSError: the kernel refused.
    """
    found: list[bytes] = []
    with closing(_open()) as sock:
        sock.send(_packed((kind, NLM_F_ROOT_MATCH, body), 1))
        while True:
            for answer, _, content in _messages(sock.recv(1 << 20)):
                if answer not in (_NLMSG_DONE, _NLMSG_ERROR):
                    found.append(content)
                    continue
                # A dump that fails half-way says so in its end.
                number = -struct.unpack_from("=i", content)[0]
                if number > 0:
                    raise OSError(number, os.strerror(number))
                return found
