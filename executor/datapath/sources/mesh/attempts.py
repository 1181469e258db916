"""A connection to a store, made again whenever it is lost, and what is known of it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from datapath.sources.mesh.together import together
from datapath.state.model import StorePlace

if TYPE_CHECKING:
    from datapath.etcd.client import Client

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_LONGEST = 0.5, 5.0
"""Seconds between attempts to connect."""


@dataclass(frozen=True)
class Failure:
    """Why there is no connection."""

    when: float
    """Seconds since the epoch."""
    stage: str
    message: str
    hint: Optional[str]


@dataclass
class ConnectionStatus:
    """What is known of the connection, for people."""

    connected: bool = False
    since: float = field(default_factory=time.time)
    """When `connected` took its value."""
    endpoint: str = ""
    server_certificate_expires: Optional[float] = None
    own_certificate_expires: Optional[float] = None
    failures: int = 0
    """Attempts in a row that failed."""
    last_failure: Optional[Failure] = None


class Attempts:
    """Holds a connection to a store; what it is for is said by who derives from this."""

    def __init__(self, what: str, place: StorePlace, status: ConnectionStatus) -> None:
        self._what = what
        """For people."""
        self._place = place
        self._connection = status

    async def use(self, client: Client) -> None:
        """What the connection is for, to its end; tells `note_connected`, and sets `failures` to 0 once all is well."""
        raise NotImplementedError

    async def farewell(self, client: Client) -> None:
        """What is left to say when `run` is cancelled; soon, as nobody waits for long."""

    def note_connected(self) -> None:
        """The store is one that can be used."""
        status = self._connection
        # With new certificates it was all the time.
        if not status.connected:
            status.connected, status.since = True, time.time()
        log.info("%s: connected to %s", self._what, status.endpoint)

    def lost(self) -> None:
        """After each attempt that failed."""

    async def run(self) -> None:
        """Until cancelled."""
        pause = RETRY_FIRST
        while True:
            failure = await self._attempt()
            if failure is None:
                log.info("%s: new certificates", self._what)
                continue
            if not self._connection.failures:
                pause = RETRY_FIRST
            self._note(failure)
            self.lost()
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_LONGEST)

    def _note(self, failure: Failure) -> None:
        status = self._connection
        if status.last_failure is None or status.last_failure.message != failure.message:
            log.warning("%s: %s: %s", self._what, failure.stage, failure.message)
        status.last_failure = failure
        status.failures += 1
        if status.connected:
            status.connected, status.since = False, time.time()

    async def _attempt(self) -> Optional[Failure]:
        """One connection; None where it ended only for another one with new certificates."""
        from datapath.etcd.errors import StoreError  # noqa: PLC0415 - gRPC is a dear import

        try:
            await self._connect()
        except StoreError as error:
            return Failure(time.time(), error.stage.value, error.message, error.hint)
        except Exception as error:
            # What a store holds must not end the daemon.
            log.exception("%s", self._what)
            return Failure(time.time(), "data", f"{type(error).__name__}: {error}", None)
        return None

    async def _connect(self) -> None:
        from datapath.etcd.client import connect  # noqa: PLC0415
        from datapath.etcd.dial import Credentials  # noqa: PLC0415

        place, status = self._place, self._connection
        credentials = Credentials.of(place)
        stamp = credentials.stamp()
        client = await connect(place.endpoints, credentials)
        try:
            status.endpoint = str(client.reached.endpoint)
            status.server_certificate_expires = client.reached.certificate.not_after.timestamp()
            status.own_certificate_expires = client.own.not_after.timestamp()
            await together(self.use(client), credentials.replaced(stamp))
        except asyncio.CancelledError:
            await self.farewell(client)
            raise
        finally:
            client.close()
