"""Publishes in this cluster's own store: this node, and for the cluster as a whole where it is elected."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from datapath.sources.mesh import layout, own_store
from datapath.sources.mesh.attempts import Attempts, ConnectionStatus, Failure
from datapath.sources.mesh.collector import collect
from datapath.sources.mesh.election import Election
from datapath.sources.mesh.keeper import Keeper
from datapath.sources.mesh.kinds import KINDS, SERVICES, Kind
from datapath.sources.mesh.own_endpoints import OwnEndpoints
from datapath.sources.mesh.published import LATER_KINDS, Cluster, config_value, node_key, node_value, timestamp
from datapath.sources.mesh.session import check_authorisation
from datapath.sources.mesh.together import together
from datapath.state.model import OwnStore

if TYPE_CHECKING:
    from datapath.etcd.client import Client, Span
    from datapath.etcd.operations import Created
    from datapath.etcd.writes import Condition, Writer

log = logging.getLogger(__name__)

BEAT = 60.0
"""Seconds between heartbeats."""
SETTLE = 15.0
"""Seconds in which all nodes find a store that begins anew: it has not all that they publish before."""
LOOK = 10.0
"""Seconds between looks at the store itself."""
HURRY = 0.5
"""The same where something was just written."""
FAREWELL = 2.0
"""Seconds that a publisher may take to make room for another."""


@dataclass
class PublisherStatus(ConnectionStatus):
    """What is known of the own store, for people."""

    node: str = ""
    condition: Optional[Condition] = None
    quota: Optional[int] = None
    """Bytes that its database may have."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Kind -> how many of it are published for the cluster, by all of its nodes."""
    foreign: int = 0
    """Keys that somebody else wrote among those of the cluster's services."""


class Publisher(Attempts):
    """One node's part in what its cluster publishes. What is published stays when it ends, as long as leases live."""

    def __init__(self, store: OwnStore, cluster: Cluster, node: str, ttl: int) -> None:
        self.store = store
        self.cluster = cluster
        self.ttl = ttl
        self.status = PublisherStatus(node=node)
        super().__init__("own store", store, self.status)
        self.election = Election(cluster.name, node, store.publisher)
        self.of_node = Keeper(own_store.leases_prefix(cluster.name, own_store.node_owner(node)), ttl, self._node_spans)
        self.of_cluster = Keeper(own_store.leases_prefix(cluster.name, own_store.CLUSTER), ttl, self._cluster_spans)
        self.endpoints = OwnEndpoints(cluster, store.node, self.of_node)
        self.of_node.companion = self.endpoints
        self.of_node.keyspace.shared = self.endpoints.shared
        self.of_node.wrote = self.of_cluster.wrote = self._look_soon
        self.of_cluster.began = self._begin
        self.of_cluster.keyspace.last = dict.fromkeys(map(self._synced, (SERVICES, *LATER_KINDS)))
        self.of_node.want({node_key(cluster, node): node_value(cluster, node, store.node)})
        self.of_cluster.want({layout.config_key(cluster.name).encode(): config_value(cluster)})
        self._settling: Optional[asyncio.TimerHandle] = None
        self._looked = float("-inf")
        """When the store was last looked at (time.monotonic())."""

    @property
    def elected(self) -> bool:
        """Whether this node publishes for the cluster."""
        return self.election.mandate is not None

    @property
    def ready(self) -> bool:
        """Whether the store has everything that this node is to publish, and somebody publishes for the cluster."""
        own = self.of_node.complete and (self.of_cluster.complete or not self.elected)
        return self.status.connected and own and self.election.publisher is not None

    async def use(self, client: Client) -> None:
        """Publish as long as the connection lasts."""
        from datapath.etcd.writes import Writer  # noqa: PLC0415 - gRPC is a dear import

        status, writer = self.status, Writer(client)
        await check_authorisation(client, f"the user agent-{self.cluster.name}")
        # Before anything is written: what a full store says of itself is why nothing can be.
        status.condition = await writer.condition()
        self.note_connected()
        try:
            await together(
                self.election.run(client, writer),
                self.of_node.run(client, writer),
                self._lead(client, writer),
                self._look(client, writer),
            )
        finally:
            self._cancel_settling()

    async def farewell(self, client: Client) -> None:
        """Make room for another publisher."""
        from datapath.etcd.errors import StoreError  # noqa: PLC0415
        from datapath.etcd.waiting import within  # noqa: PLC0415
        from datapath.etcd.writes import Writer  # noqa: PLC0415

        with suppress(StoreError, asyncio.TimeoutError):
            await within(self.election.resign(Writer(client)), FAREWELL)

    async def _lead(self, client: Client, writer: Writer) -> None:
        """Publish for the cluster whenever this node is elected."""
        while True:
            mandate = self.election.mandate
            if mandate is None:
                await self.election.changed()
                continue
            log.info("publishing for cluster %s", self.cluster.name)
            await together(
                self.of_cluster.run(client, writer, [mandate]),
                self._beat(),
                self._while_elected(mandate),
                collect(client, writer, self.cluster, mandate),
            )

    async def _while_elected(self, mandate: Created) -> None:
        while self.election.mandate == mandate:
            await self.election.changed()

    async def _beat(self) -> None:
        while True:
            self.of_cluster.want({layout.HEARTBEAT.encode(): timestamp()})
            await asyncio.sleep(BEAT)

    def _begin(self) -> None:
        """Say what is complete once it is: services with the first writing, what nodes publish after some time."""
        self._cancel_settling()
        keyspace, now = self.of_cluster.keyspace, timestamp()
        later = [self._synced(kind) for kind in LATER_KINDS]
        self.of_cluster.want({self._synced(SERVICES): now})
        self.of_cluster.want({key: now if keyspace.has(key) else None for key in later})
        loop = asyncio.get_running_loop()
        self._settling = loop.call_later(SETTLE, self.of_cluster.want, dict.fromkeys(later, now))

    def _cancel_settling(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    async def _look(self, client: Client, writer: Writer) -> None:
        """Follow what the store tells of itself, and how much of the cluster's is in it."""
        from datapath.etcd.client import prefix  # noqa: PLC0415
        from datapath.etcd.dial import Credentials  # noqa: PLC0415
        from datapath.etcd.quota import read_quota  # noqa: PLC0415

        status, cluster = self.status, self.cluster.name
        quota = await read_quota(client.reached.endpoint, Credentials.of(self.store))
        while True:
            status.condition = await writer.condition()
            status.quota = status.condition.quota or quota
            status.counts = {kind.name: await client.count(prefix(kind.prefix(cluster, False))) for kind in KINDS}
            self._note_full()
            status.foreign = self.of_cluster.keyspace.foreign if self.elected else 0
            if self.ready:
                status.failures, status.last_failure = 0, None
            self._looked = time.monotonic()
            while time.monotonic() < self._looked + LOOK:
                await asyncio.sleep(HURRY)

    def _note_full(self) -> None:
        """Have a store that is full seen as a failure, although the connection lasts."""
        full = self.of_node.full or self.of_cluster.full
        if full is not None:
            self.status.last_failure = Failure(time.time(), full.stage.value, full.message, full.hint)

    def _look_soon(self) -> None:
        self._looked = float("-inf")

    def _synced(self, kind: Kind[Any, Any]) -> bytes:
        return kind.synced(self.cluster.name, False).encode()

    def _node_spans(self) -> Iterable[Span]:
        from datapath.etcd.client import Span, prefix  # noqa: PLC0415

        shared = (prefix(each.decode()) for each in self.endpoints.shared)
        return [Span(node_key(self.cluster, self.status.node)), *shared]

    def _cluster_spans(self) -> Iterable[Span]:
        from datapath.etcd.client import Span, prefix  # noqa: PLC0415

        name = self.cluster.name
        keys = [layout.HEARTBEAT.encode(), layout.config_key(name).encode(), *self.of_cluster.keyspace.last]
        return [prefix(SERVICES.prefix(name, False)), *map(Span, keys)]
