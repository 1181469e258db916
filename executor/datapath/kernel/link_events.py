"""That devices come, go, or change, as routing netlink tells it."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

_RTMGRP_LINK = 1


class LinkEvents:
    """A socket that is readable when something happened; what that was is for the reader to look up."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_LINK))

    def fileno(self) -> int:
        """For select and its like."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Forget what was told."""
        with suppress(BlockingIOError):
            while self._read():
                pass

    def _read(self) -> bool:
        try:
            return bool(self._socket.recv(1 << 16))
        except OSError as e:
            # The kernel had no room for all of it, which tells as much.
            if e.errno != errno.ENOBUFS:
                raise
        return True

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def device_indexes() -> dict[str, int]:
    """Name -> index of every device."""
    return {name: index for index, name in socket.if_nameindex()}
