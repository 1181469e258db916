"""Which node publishes for the cluster: of those that may, the one whose key in the store is the oldest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from datapath.etcd.operations import Change, Created, Delete, Put
from datapath.sources.mesh import own_store
from datapath.sources.mesh.together import together

if TYPE_CHECKING:
    from datapath.etcd.client import Client
    from datapath.etcd.writes import Writer

log = logging.getLogger(__name__)

LEASE_TTL = 8
"""Seconds after which a candidate that is silent is none any more.

Less than what is left of any lease that it kept (two thirds of 15 seconds at least): its successor comes in time.
"""
MISSED = 1.0
"""Seconds after which a key that is not there is missed."""


class Election:
    """One node's view, and its candidacy where it has one; lasts longer than a connection."""

    def __init__(self, cluster: str, node: str, candidate: bool) -> None:
        self.node = node
        self.candidate = candidate
        self.publisher: Optional[str] = None
        """The node that is elected; None where there is no candidate."""
        self.mandate: Optional[Created] = None
        """What holds as long as this node is elected; None while it is not."""
        self._prefix = own_store.candidates_prefix(cluster)
        self._lease = 0
        self._candidates: dict[bytes, Change] = {}
        self._changed = asyncio.Event()

    @property
    def _key(self) -> bytes:
        return own_store.lease_key(self._prefix, self._lease)

    async def changed(self) -> None:
        """Wait until candidates come or go."""
        await self._changed.wait()
        self._changed.clear()

    async def run(self, client: Client, writer: Writer) -> None:
        """Follow, and be a candidate, as long as the connection lasts; always raises."""
        from datapath.etcd.client import prefix  # noqa: PLC0415 - gRPC is a dear import

        self._candidates.clear()
        self.mandate = None
        span, revision = prefix(self._prefix), 0
        async for page in client.pages(span):
            revision = page.revision
            self._candidates.update((each.key, each) for each in page.entries)
        self._note()
        starts = {span: revision + 1}
        if not self.candidate:
            await client.watch(starts, self._take)
            return
        await self._stand(writer)
        await together(
            client.watch(starts, self._take),
            writer.keep_alive(self._lease, LEASE_TTL, lambda: None),
            self._stand_again(writer),
        )

    async def _stand(self, writer: Writer) -> None:
        """Be a candidate: still, where a lost connection came back in time."""
        if not self._lease or await writer.time_to_live(self._lease) is None:
            self._lease = await writer.grant(LEASE_TTL)
        elif self._key in self._candidates:
            return
        # What this node left there before it was killed need not be waited for.
        left = [
            key for key, each in self._candidates.items() if own_store.parse_candidate(each.value or b"") == self.node
        ]
        operations = [Delete(key) for key in left if key != self._key]
        await writer.commit([*operations, Put(self._key, own_store.dump_candidate(self.node), self._lease)])

    async def _stand_again(self, writer: Writer) -> None:
        """Be a candidate again where somebody removed the key."""
        while True:
            await asyncio.sleep(MISSED)
            if self._key not in self._candidates:
                await self._stand(writer)

    async def resign(self, writer: Writer) -> None:
        """Be no candidate any more, so that another one needs not wait."""
        lease, self._lease = self._lease, 0
        if lease:
            await writer.revoke(lease)
        self._note()

    def _take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.value is None:
                self._candidates.pop(change.key, None)
            else:
                self._candidates[change.key] = change
        self._note()

    def _note(self) -> None:
        first = own_store.elected(self._candidates.values())
        # Attributes, not properties: they are asked for in another thread.
        self.mandate = None if first is None or first.key != self._key else Created(first.key, first.created)
        publisher = None if first is None else own_store.parse_candidate(first.value or b"")
        if publisher != self.publisher:
            log.info("%s publishes for the cluster", publisher or "nobody")
        self.publisher = publisher
        self._changed.set()
