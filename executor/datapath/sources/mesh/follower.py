"""Follows the store of one other cluster: lists what it publishes, watches it, and keeps it when the store is away."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from datapath.sources.mesh import layout
from datapath.sources.mesh.kinds import KINDS, SERVICES, Origin
from datapath.sources.mesh.session import Rules, check_authorisation, heartbeat_time, read_config
from datapath.sources.mesh.table import KindStatus, Table
from datapath.sources.mesh.values import QuarantineError
from datapath.state.model import Peer
from datapath.state.remote import RemoteService, ServiceName

if TYPE_CHECKING:
    from datapath.etcd.client import Client, Span
    from datapath.etcd.operations import Change

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_LONGEST = 0.5, 5.0
"""Seconds between attempts to connect."""

Changed = Callable[[str, Mapping[ServiceName, Optional[RemoteService]]], None]
"""Called with the cluster and its services that are others now; None where one is gone."""


@dataclass(frozen=True)
class Failure:
    """Why there is no connection."""

    when: float
    """Seconds since the epoch."""
    stage: str
    message: str
    hint: Optional[str]


@dataclass
class PeerStatus:
    """What is known of the connection, for people."""

    connected: bool = False
    ready: bool = False
    """Whether everything that the cluster publishes has been read, and what it does not is removed."""
    since: float = field(default_factory=time.time)
    """When `connected` took its value."""
    endpoint: str = ""
    server_certificate_expires: Optional[float] = None
    own_certificate_expires: Optional[float] = None
    cluster_id: Optional[int] = None
    heartbeat: Optional[float] = None
    revoked: bool = False
    """Whether the services were given up, after the time that the cache lives."""
    failures: int = 0
    """Attempts in a row that failed."""
    last_failure: Optional[Failure] = None


class FollowerStatus(NamedTuple):
    """What is known of a cluster, for people."""

    peer: PeerStatus
    kinds: Mapping[str, KindStatus]
    """By their names."""


Known = Mapping[str, Mapping[Any, Any]]
"""Name of a kind -> what is known of it."""


_Taker = Callable[[bytes, Optional[bytes]], Optional["Sequence[Span]"]]
"""Takes the change of a key; returns what is to be listed again."""


class _Spans(NamedTuple):
    """Where a kind is in the store."""

    values: Span
    synced: Span


class _ListAgainError(Exception):
    """The cluster has just told that all it has of a kind is published."""


class Follower:
    """One peer. `tables` are what is used of it, also while there is no connection."""

    def __init__(self, peer: Peer, rules: Rules, ids: dict[str, int], known: Known, changed: Changed) -> None:
        self.peer = peer
        self.rules = rules
        self.status = PeerStatus()
        self.tables = {kind.name: Table(kind, known.get(kind.name, {})) for kind in KINDS}
        services = Table(SERVICES, known.get(SERVICES.name, {}), functools.partial(changed, peer.name))
        self.tables[SERVICES.name] = services
        self._ids = ids
        """Cluster -> id, of all peers."""
        self._spans: dict[Table[Any, Any], _Spans] = {}
        """What is read over this connection."""
        self._takers: dict[Span, _Taker] = {}
        self._positions: dict[Span, int] = {}
        """Of what has been read: up to which revision all is known."""
        self._expiry: Optional[asyncio.TimerHandle] = None
        self._origin: Origin

    @property
    def known(self) -> Known:
        """What another follower of this peer begins with."""
        return {name: table.known for name, table in self.tables.items()}

    @property
    def whole_status(self) -> FollowerStatus:
        """As it is now; may be asked for in another thread."""
        return FollowerStatus(self.status, {name: table.status for name, table in self.tables.items()})

    async def run(self) -> None:
        """Follow until cancelled."""
        self._expire_later()
        pause = RETRY_FIRST
        try:
            while True:
                await self._attempt()
                if not self.status.failures:
                    pause = RETRY_FIRST
                self._lost()
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_LONGEST)
        finally:
            if self._expiry is not None:
                self._expiry.cancel()

    async def _attempt(self) -> None:
        from datapath.etcd.errors import StoreError  # noqa: PLC0415 - gRPC is a dear import

        try:
            await self._follow()
        except StoreError as error:
            failure = Failure(time.time(), error.stage.value, error.message, error.hint)
        except Exception as error:
            # What a store holds must not end the daemon.
            log.exception("cluster %s", self.peer.name)
            failure = Failure(time.time(), "data", f"{type(error).__name__}: {error}", None)
        if self.status.last_failure is None or self.status.last_failure.message != failure.message:
            log.warning("cluster %s: %s: %s", self.peer.name, failure.stage, failure.message)
        self.status.last_failure = failure

    async def _follow(self) -> None:
        """One connection, from its making to its end."""
        from datapath.etcd.client import connect  # noqa: PLC0415
        from datapath.etcd.dial import Credentials  # noqa: PLC0415

        peer, status = self.peer, self.status
        credentials = Credentials(*map(Path, (peer.ca, peer.certificate, peer.key)))
        client = await connect(peer.endpoints, credentials)
        try:
            status.endpoint = str(client.reached.endpoint)
            status.server_certificate_expires = client.reached.certificate.not_after.timestamp()
            status.own_certificate_expires = client.own.not_after.timestamp()
            await check_authorisation(client)
            others = {name: number for name, number in self._ids.items() if name != peer.name}
            config = await read_config(client, peer.name, self.rules, others)
            self._origin = Origin(peer.name, config, self.rules.networks)
            self._ids[peer.name] = status.cluster_id = config.cluster_id
            status.connected, status.since, status.revoked = True, time.time(), False
            log.info("cluster %s: connected to %s", peer.name, status.endpoint)
            await self._watch(client)
        finally:
            client.close()

    async def _watch(self, client: Client) -> None:
        from datapath.etcd.errors import CompactedError  # noqa: PLC0415

        self._begin()
        while True:
            with suppress(_ListAgainError):
                try:
                    await self._read(client)
                    starts = {span: revision + 1 for span, revision in self._positions.items()}
                    await client.watch(starts, self._take)
                except CompactedError:
                    self._positions.clear()

    def _begin(self) -> None:
        """What is to be read over a new connection, and who takes its changes."""
        from datapath.etcd.client import Span, prefix  # noqa: PLC0415

        place = (self.peer.name, self._origin.config.cached)
        self._positions.clear()
        self._spans = {}
        self._takers = {
            Span(layout.HEARTBEAT.encode()): self._take_heartbeat,
            Span(layout.config_key(self.peer.name).encode()): self._take_config,
        }
        for table in self.tables.values():
            table.denied = None
            spans = _Spans(prefix(table.kind.prefix(*place)), Span(table.kind.synced(*place).encode()))
            self._spans[table] = spans
            self._takers[spans.values] = functools.partial(self._take_value, table)
            self._takers[spans.synced] = functools.partial(self._take_synced, table)

    async def _read(self, client: Client) -> None:
        """Read what is not known up to some revision."""
        from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415

        for table, spans in list(self._spans.items()):
            if spans.values in self._positions:
                continue
            try:
                await self._list(client, table)
            except StoreError as error:
                if table.kind.required or error.stage is not Stage.AUTHORISATION:
                    raise
                log.warning("cluster %s: %s: %s", self.peer.name, table.kind.name, error.message)
                table.denied = error.message
                del self._spans[table], self._takers[spans.values], self._takers[spans.synced]
            self._settle()
        rest = self._takers.keys() - self._positions.keys()
        if rest:
            revision = max(self._positions.values())
            self._take_heartbeat(b"", await client.get(layout.HEARTBEAT, revision))
            self._positions.update(dict.fromkeys(rest, revision))

    async def _list(self, client: Client, table: Table[Any, Any]) -> None:
        """Read everything of a kind, and remove what is not published any more."""
        spans = self._spans[table]
        present: set[Any] = set()
        quarantined, table.quarantined = table.quarantined, {}
        revision = 0
        try:
            async for page in client.pages(spans.values):
                revision = page.revision
                names = (table.put(key, value, self._origin) for key, value in page.values.items())
                present.update(name for name in names if name is not None)
                table.flush()
        except BaseException:
            table.quarantined = {**quarantined, **table.quarantined}
            raise
        # All of the same revision: what was published between two readings would count as gone.
        if not self._origin.config.synced_canaries or await client.get(spans.synced.text, revision) is not None:
            table.keep(present)
            table.synced = True
        self._positions.update(dict.fromkeys(spans, revision))

    def _settle(self) -> None:
        """After a kind was read: it may have been the last one."""
        tables, status = self.tables.values(), self.status
        if all(table.synced for table in tables if table.kind.required):
            status.failures, status.last_failure = 0, None
            if self._expiry is not None:
                self._expiry.cancel()
                self._expiry = None
        if not status.ready and all(table.synced or table.denied is not None for table in tables):
            status.ready = True
            counts = ", ".join(f"{len(table.known)} {name}" for name, table in self.tables.items())
            log.info("cluster %s: ready, %s", self.peer.name, counts)

    def _take(self, changes: Sequence[Change]) -> None:
        """Changes that a watch tells."""
        again: list[Span] = []
        for change in changes:
            span = next((each for each in self._takers if change.key in each), None)
            if span is None:
                continue
            self._positions[span] = change.revision
            again += self._takers[span](change.key, change.value) or ()
        for table in self.tables.values():
            table.flush()
        if again:
            for span in again:
                self._positions.pop(span, None)
            raise _ListAgainError

    def _take_value(self, table: Table[Any, Any], key: bytes, value: Optional[bytes]) -> None:
        if value is None:
            table.delete(key, self._origin)
        else:
            table.put(key, value, self._origin)

    def _take_synced(self, table: Table[Any, Any], _: bytes, value: Optional[bytes]) -> Sequence[Span]:
        if value is None or table.synced:
            return ()
        return (self._spans[table].values,)

    def _take_heartbeat(self, _: bytes, value: Optional[bytes]) -> None:
        self.status.heartbeat = heartbeat_time(value)

    def _take_config(self, _: bytes, value: Optional[bytes]) -> None:
        from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415

        if value is None:
            return
        try:
            same = layout.parse_config(value) == self._origin.config
        except QuarantineError:
            same = False
        if not same:
            # With the next connection it is compared with everybody else's.
            raise StoreError(Stage.DATA, f"{layout.config_key(self.peer.name)} has changed")

    def _lost(self) -> None:
        """After an attempt."""
        status = self.status
        if status.connected:
            status.connected, status.since = False, time.time()
        status.ready = False
        for table in self.tables.values():
            table.synced = False
        status.failures += 1
        if self._expiry is None:
            self._expire_later()

    def _expire_later(self) -> None:
        if self.rules.cache_ttl:
            self._expiry = asyncio.get_running_loop().call_later(self.rules.cache_ttl, self._revoke)

    def _revoke(self) -> None:
        """Give up what was kept for too long."""
        self._expiry = None
        if self.status.connected:
            return
        if not self.status.revoked:
            log.warning("cluster %s: what is known of it is given up", self.peer.name)
        self.status.revoked = True
        for table in self.tables.values():
            table.keep(())
