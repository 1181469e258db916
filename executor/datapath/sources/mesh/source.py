"""All other clusters of the mesh: a follower each, and their changes in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Optional

from datapath.sources.batches import Batches
from datapath.sources.mesh.follower import Follower, FollowerStatus
from datapath.sources.mesh.kinds import SERVICES
from datapath.sources.mesh.memory import Changes
from datapath.sources.mesh.session import Rules
from datapath.sources.mesh.together import cancel
from datapath.state.model import Peer
from datapath.state.remote import RemoteService, RemoteServices, ServiceName

Deliver = Callable[[Changes], Awaitable[None]]


class MeshSource:
    """Follows peers on the running event loop and delivers changes of their services in batches."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ids: dict[str, int] = {}
        self._batches: Batches[str, dict[ServiceName, Optional[RemoteService]]] = Batches()

    def update(self, peers: Iterable[Peer], options: Mapping[str, Any], known: RemoteServices) -> None:
        """Follow these peers from now on; what is known of new ones is `known`. `options` are effective ones."""
        rules, old = Rules.of(options), self._followers
        followers: dict[str, Follower] = {}
        for peer in peers:
            follower = old.get(peer.name)
            if follower is None or (follower.peer, follower.rules) != (peer, rules):
                self._stop(peer.name)
                before = {SERVICES.name: known.get(peer.name, {})} if follower is None else follower.known
                follower = Follower(peer, rules, self._ids, before, self._note)
                self._tasks[peer.name] = asyncio.ensure_future(follower.run())
            followers[peer.name] = follower
        # A new dictionary, complete before it is seen: `statuses` may run in another thread.
        self._followers = followers
        for name in old.keys() - followers.keys():
            self._stop(name)
            self._batches.waiting.pop(name, None)

    def statuses(self) -> dict[str, FollowerStatus]:
        """Cluster -> what is known of the connection, and of each kind."""
        return {name: each.whole_status for name, each in self._followers.items()}

    async def run(self, deliver: Deliver) -> None:
        """Deliver changes until cancelled."""
        try:
            await self._batches.run(deliver)
        finally:
            await cancel(*self._tasks.values())

    def _note(self, cluster: str, changes: Mapping[ServiceName, Optional[RemoteService]]) -> None:
        self._batches.waiting.setdefault(cluster, {}).update(changes)
        self._batches.ready()

    def _stop(self, name: str) -> None:
        self._ids.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
