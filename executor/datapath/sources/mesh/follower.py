"""Follows the store of one other cluster: lists what it publishes, watches it, and keeps it when the store is away."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from datapath.sources.mesh import layout
from datapath.sources.mesh.attempts import Attempts, ConnectionStatus
from datapath.sources.mesh.kinds import KINDS, SERVICES, Origin
from datapath.sources.mesh.session import Rules, check_authorisation, heartbeat_time, read_config
from datapath.sources.mesh.table import KindStatus, Table
from datapath.sources.mesh.together import together
from datapath.sources.mesh.values import QuarantineError
from datapath.sources.mesh.watcher import Watcher
from datapath.state.model import Peer
from datapath.state.remote import RemoteService, ServiceName

if TYPE_CHECKING:
    from datapath.etcd.client import Client

log = logging.getLogger(__name__)

Changed = Callable[[str, Mapping[ServiceName, Optional[RemoteService]]], None]
"""Called with the cluster and its services that are others now; None where one is gone."""


@dataclass
class PeerStatus(ConnectionStatus):
    """What is known of the connection, for people."""

    ready: bool = False
    """Whether everything that the cluster publishes has been read, and what it does not is removed."""
    cluster_id: Optional[int] = None
    heartbeat: Optional[float] = None
    revoked: bool = False
    """Whether the services were given up, after the time that the cache lives."""


class FollowerStatus(NamedTuple):
    """What is known of a cluster, for people."""

    peer: PeerStatus
    kinds: Mapping[str, KindStatus]
    """By their names."""


Known = Mapping[str, Mapping[Any, Any]]
"""Name of a kind -> what is known of it."""


class Follower(Attempts):
    """One peer. `tables` are what is used of it, also while there is no connection."""

    def __init__(self, peer: Peer, rules: Rules, ids: dict[str, int], known: Known, changed: Changed) -> None:
        self.peer = peer
        self.rules = rules
        self.status = PeerStatus()
        super().__init__(f"cluster {peer.name}", peer, self.status)
        told = {SERVICES.name: functools.partial(changed, peer.name)}
        self.tables = {kind.name: Table(kind, known.get(kind.name, {}), told.get(kind.name)) for kind in KINDS}
        self._ids = ids
        """Cluster -> id, of all peers."""
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
        try:
            await super().run()
        finally:
            if self._expiry is not None:
                self._expiry.cancel()

    async def use(self, client: Client) -> None:
        """Follow as long as the connection lasts."""
        peer, status = self.peer, self.status
        self._forget()
        await check_authorisation(client)
        others = {name: number for name, number in self._ids.items() if name != peer.name}
        config = await read_config(client, peer.name, self.rules, others)
        self._origin = Origin(peer.name, config, self.rules.networks)
        self._ids[peer.name] = status.cluster_id = config.cluster_id
        status.revoked = False
        self.note_connected()
        await self._watch(client)

    async def _watch(self, client: Client) -> None:
        """Services by themselves: however much there is of all else, a change of one is not to wait for it."""
        singles = {
            layout.HEARTBEAT: self._take_heartbeat,
            layout.config_key(self.peer.name): self._take_config,
        }
        first = [table for table in self.tables.values() if table.kind.required]
        rest = [table for table in self.tables.values() if not table.kind.required]
        for table in rest:
            table.denied = None
        await together(
            Watcher(client, self._origin, first, singles, self._settle).run(),
            Watcher(client, self._origin, rest, {}, self._settle).run(),
        )

    def _settle(self) -> None:
        """After a kind was read: it may have been the last one."""
        tables, status = self.tables.values(), self.status
        if all(table.synced for table in tables if table.kind.required):
            status.failures, status.last_failure = 0, None
            if self._expiry is not None:
                self._expiry.cancel()
                self._expiry = None
        before, status.ready = status.ready, all(table.synced or table.denied is not None for table in tables)
        if status.ready and not before:
            counts = ", ".join(f"{len(table.known)} {name}" for name, table in self.tables.items())
            log.info("cluster %s: ready, %s", self.peer.name, counts)

    def _take_heartbeat(self, value: Optional[bytes]) -> None:
        self.status.heartbeat = heartbeat_time(value)

    def _take_config(self, value: Optional[bytes]) -> None:
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

    def lost(self) -> None:
        """After each attempt that failed."""
        self._forget()
        if self._expiry is None:
            self._expire_later()

    def _forget(self) -> None:
        """Nothing has been read over a connection that is new, or gone."""
        self.status.ready = False
        for table in self.tables.values():
            table.synced = False

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
