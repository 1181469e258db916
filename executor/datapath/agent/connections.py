"""What is known of a connection to a store, this cluster's own or another one's, for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Optional

from datapath.sources.mesh.attempts import ConnectionStatus

_EXPIRES_SOON = 60 * 86400.0


def dump_connection(status: ConnectionStatus) -> dict[str, Any]:
    """The connection as a part of a JSON document."""
    return {
        "connected": status.connected,
        "since": status.since,
        "endpoint": status.endpoint or None,
        "certificate_expires": status.own_certificate_expires,
        "server_certificate_expires": status.server_certificate_expires,
        "failures": status.failures,
        "failure": None if status.last_failure is None else asdict(status.last_failure),
    }


def hints(status: ConnectionStatus, certificate: str, store: str, others: Iterable[str]) -> Iterator[str]:
    """What helps, and what is soon to be done; `certificate` is this node's file, `others` are hints in between."""
    if status.last_failure is not None and status.last_failure.hint:
        yield status.last_failure.hint
    yield from others
    for whose, expires in (
        (f"this node's certificate ({certificate})", status.own_certificate_expires),
        (f"{store} certificate", status.server_certificate_expires),
    ):
        yield from _expiry(whose, expires)


def _expiry(whose: str, expires: Optional[float]) -> Iterator[str]:
    """That a certificate expires, where that is soon (`expires` in seconds since the epoch)."""
    left = None if expires is None else expires - time.time()
    if left is not None and left <= _EXPIRES_SOON:
        yield f"{whose} expires in {max(left, 0) / 86400:.0f} days"
