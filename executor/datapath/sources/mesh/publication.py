"""What this node publishes, following its desired state and the health of its backends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterable
from typing import Any, Optional

from datapath.sources.merge import Health
from datapath.sources.mesh.published import Cluster, PublishedServices
from datapath.sources.mesh.publisher import Publisher
from datapath.sources.mesh.together import cancel
from datapath.sources.mesh.withdrawal import withdraw
from datapath.spec.options import effective
from datapath.state.model import DesiredState, Endpoint, OwnStore

FAREWELL = 5.0
"""Seconds that a withdrawal may take of the daemon's stop."""


def node_name(store: OwnStore) -> str:
    """What this node is called in its cluster."""
    return store.node.name or socket.gethostname().lower()


class Publication:
    """Runs a publisher on the event loop while the desired state has a store."""

    def __init__(self) -> None:
        self.publisher: Optional[Publisher] = None
        """None while nothing is published."""
        self._services: Optional[PublishedServices] = None
        self._endpoints: tuple[Endpoint, ...] = ()
        self._task: Optional[asyncio.Task[None]] = None
        self._leaving: set[asyncio.Task[None]] = set()

    def update(self, desired: DesiredState, health: Health) -> None:
        """Publish this from now on; what is no longer this node's is withdrawn."""
        options = effective(desired.options)
        cluster, ttl = Cluster.of(options), int(options["kvstore-lease-ttl"])
        store, publisher = desired.store, self.publisher
        if publisher is not None and (store, cluster, ttl) != (publisher.store, publisher.cluster, publisher.ttl):
            self._leave(publisher, None if store is None else (store, cluster))
            self.publisher = publisher = None
        if store is None:
            return
        if publisher is None or self._services is None:
            self._services = PublishedServices(cluster)
            self.publisher = publisher = Publisher(store, cluster, node_name(store), ttl)
            self._task = asyncio.ensure_future(self._after(set(self._leaving), publisher.run()))
        publisher.of_cluster.want(self._services.update(desired.services, health))
        publisher.endpoints.want(self._endpoints)

    def health_changed(self, changes: Health) -> None:
        """Publish what results of health checks change."""
        if self.publisher is not None and self._services is not None:
            self.publisher.of_cluster.want(self._services.health_changed(changes))

    def endpoints_changed(self, endpoints: Iterable[Endpoint]) -> None:
        """Publish identities and addresses of these."""
        self._endpoints = tuple(endpoints)
        if self.publisher is not None:
            self.publisher.endpoints.want(self._endpoints)

    def identity(self, endpoint: Endpoint) -> Optional[int]:
        """The endpoint's number in the cluster; None while it has none."""
        publisher = self.publisher
        return None if publisher is None else publisher.endpoints.identity(endpoint)

    @property
    def oversized(self) -> dict[str, int]:
        """Services that are too large to be published, and their bytes."""
        found = {} if self._services is None else self._services.oversized.copy()
        return {str(name): size for name, size in found.items()}

    async def run(self) -> None:
        """Until cancelled: then room is made for another node, and nothing is withdrawn."""
        try:
            await asyncio.Event().wait()
        finally:
            if self._task is not None:
                await cancel(self._task)
            if self._leaving:
                await asyncio.wait(self._leaving, timeout=FAREWELL)

    def _leave(self, publisher: Publisher, then: Optional[tuple[OwnStore, Cluster]]) -> None:
        """Stop publishing, and withdraw what the next publisher has no part in."""
        task, self._task = self._task, None
        leaving = asyncio.ensure_future(_stopped(task, publisher, _withdraws(publisher, then)))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    @staticmethod
    async def _after(others: set[asyncio.Task[None]], publishing: Coroutine[Any, Any, None]) -> None:
        """A node does not come before it has gone."""
        try:
            if others:
                await asyncio.wait(others)
        except BaseException:
            publishing.close()
            raise
        await publishing


def _withdraws(publisher: Publisher, then: Optional[tuple[OwnStore, Cluster]]) -> bool:
    """Whether what was published is not what the next publisher takes over: another store, cluster or node."""
    if then is None:
        return True
    store, cluster = then
    return (
        cluster.name != publisher.cluster.name
        or node_name(store) != publisher.status.node
        or not set(store.endpoints) & set(publisher.store.endpoints)
    )


async def _stopped(task: Optional[asyncio.Task[None]], publisher: Publisher, withdraws: bool) -> None:
    if task is not None:
        await cancel(task)
    if withdraws:
        await withdraw(publisher.store, publisher.cluster.name, publisher.status.node)
