"""Follows the store of one other cluster: lists its services, watches them, and keeps them when it is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from datapath.sources.mesh import layout
from datapath.sources.mesh.layout import ClusterConfig
from datapath.sources.mesh.session import Rules, check_authorisation, heartbeat_time, read_config
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
    quarantined: dict[str, str] = field(default_factory=dict)
    """Key -> why its value is not used."""


class _ListAgainError(Exception):
    """The cluster has just told that all it has is published."""


class Follower:
    """One peer. `services` is what is used of it, also while there is no connection."""

    def __init__(
        self,
        peer: Peer,
        rules: Rules,
        ids: dict[str, int],
        services: Mapping[ServiceName, RemoteService],
        changed: Changed,
    ) -> None:
        self.peer = peer
        self.rules = rules
        self.services = dict(services)
        self.status = PeerStatus()
        self._ids = ids
        """Cluster -> id, of all peers."""
        self._changed = changed
        self._changes: dict[ServiceName, Optional[RemoteService]] = {}
        self._expiry: Optional[asyncio.TimerHandle] = None
        self._config: ClusterConfig

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
            self._config = await read_config(client, peer.name, self.rules, others)
            self._ids[peer.name] = status.cluster_id = self._config.cluster_id
            status.connected, status.since, status.revoked = True, time.time(), False
            log.info("cluster %s: connected to %s", peer.name, status.endpoint)
            await self._watch(client)
        finally:
            client.close()

    async def _watch(self, client: Client) -> None:
        from datapath.etcd.errors import CompactedError  # noqa: PLC0415

        while True:
            with suppress(CompactedError, _ListAgainError):
                await client.watch(await self._list(client), self._take)

    async def _list(self, client: Client) -> Mapping[Span, int]:
        """Read everything; returns what to watch from which revision on."""
        from datapath.etcd.client import Span, prefix  # noqa: PLC0415

        name, cached = self.peer.name, self._config.cached
        services = prefix(layout.services_prefix(name, cached))
        synced, config = layout.synced_key(name, cached), layout.config_key(name)
        present: set[ServiceName] = set()
        quarantined = self.status.quarantined
        self.status.quarantined = {}
        revision = 0
        try:
            async for page in client.pages(services):
                revision = page.revision
                present.update(found for found in map(self._put, page.values, page.values.values()) if found)
                self._flush()
        except BaseException:
            self.status.quarantined = {**quarantined, **self.status.quarantined}
            raise
        # All of the same revision: what was published between two readings would count as gone.
        if not self._config.synced_canaries or await client.get(synced, revision) is not None:
            self._prune(present)
        self.status.heartbeat = heartbeat_time(await client.get(layout.HEARTBEAT, revision))
        spans = (services, *(Span(key.encode()) for key in (synced, config, layout.HEARTBEAT)))
        return dict.fromkeys(spans, revision + 1)

    def _prune(self, present: set[ServiceName]) -> None:
        """Give up what the cluster does not publish any more."""
        for name in [each for each in self.services if each not in present]:
            self._remove(name)
        self._flush()
        status = self.status
        status.ready, status.failures, status.last_failure = True, 0, None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        log.info("cluster %s: ready, %d services", self.peer.name, len(self.services))

    def _take(self, changes: Sequence[Change]) -> None:
        """Changes that a watch tells."""
        name, cached = self.peer.name, self._config.cached
        services = layout.services_prefix(name, cached).encode()
        for change in changes:
            if change.key.startswith(services):
                self._take_service(change.key, change.value)
            elif change.key == layout.HEARTBEAT.encode():
                self.status.heartbeat = heartbeat_time(change.value)
            elif change.key == layout.synced_key(name, cached).encode():
                if change.value is not None and not self.status.ready:
                    raise _ListAgainError
            elif change.value is not None:
                self._take_config(change.value)
        self._flush()

    def _take_service(self, key: bytes, value: Optional[bytes]) -> None:
        if value is not None:
            self._put(key, value)
            return
        self.status.quarantined.pop(layout.key_text(key), None)
        try:
            name = layout.parse_service_key(layout.services_prefix(self.peer.name, self._config.cached), key)
        except QuarantineError:
            return
        if name in self.services:
            self._remove(name)

    def _take_config(self, value: bytes) -> None:
        from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415

        try:
            same = layout.parse_config(value) == self._config
        except QuarantineError:
            same = False
        if not same:
            # With the next connection it is compared with everybody else's.
            raise StoreError(Stage.DATA, f"{layout.config_key(self.peer.name)} has changed")

    def _put(self, key: bytes, value: bytes) -> Optional[ServiceName]:
        """Use a value, or put it into quarantine: then the last good one of its key stays. The service it is about."""
        name = None
        quarantined = self.status.quarantined
        try:
            name = layout.parse_service_key(layout.services_prefix(self.peer.name, self._config.cached), key)
            service = layout.parse_service(value, self.peer.name, self._config.cluster_id, name, self.rules.networks)
        except QuarantineError as error:
            if quarantined.get(layout.key_text(key)) != str(error):
                log.warning("cluster %s: %s: %s", self.peer.name, layout.key_text(key), error)
            quarantined[layout.key_text(key)] = str(error)
            return name
        quarantined.pop(layout.key_text(key), None)
        if self.services.get(name) != service:
            self.services[name] = self._changes[name] = service
        return name

    def _remove(self, name: ServiceName) -> None:
        del self.services[name]
        self._changes[name] = None

    def _flush(self) -> None:
        if self._changes:
            changes, self._changes = self._changes, {}
            self._changed(self.peer.name, changes)

    def _lost(self) -> None:
        """After an attempt."""
        status = self.status
        if status.connected:
            status.connected, status.since = False, time.time()
        status.ready = False
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
            log.warning("cluster %s: %d services given up", self.peer.name, len(self.services))
        self.status.revoked = True
        for name in list(self.services):
            self._remove(name)
        self._flush()
