"""Has the keys of one owner in a store be what they should: lists them, writes what differs, and watches them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, Optional

from datapath.etcd.operations import Change, Created, Operation, Put, batches
from datapath.sources.mesh import own_store
from datapath.sources.mesh.keyspace import Keyspace
from datapath.sources.mesh.together import together

if TYPE_CHECKING:
    from datapath.etcd.client import Client, Span
    from datapath.etcd.errors import FullError
    from datapath.etcd.writes import Writer

log = logging.getLogger(__name__)

REPAIR = 0.5
"""Seconds after which what somebody else changed is written again."""
MANY_REPAIRS = 5
"""So often nobody changes a key by mistake."""
FULL_RETRY = 2.0
"""Seconds between attempts to write into a store that is full."""


class Companion:
    """Works out what is to be kept, where that takes the store."""

    async def prepare(self, client: Client, writer: Writer) -> None:
        """With a new session: there is a lease, and nothing is written yet."""

    async def run(self, client: Client, writer: Writer) -> None:
        """Go on as long as the session lasts; always raises."""
        await asyncio.Event().wait()


class Keeper:
    """One owner's keys; `keyspace` lasts longer than a connection, and says what is wanted."""

    def __init__(self, registry: str, ttl: int, spans: Callable[[], Iterable[Span]]) -> None:
        self.keyspace = Keyspace()
        self.ttl = ttl
        """Seconds that the keys last without this node, or another one that takes the lease over."""
        self.renewed: Optional[float] = None
        """When the lease was last renewed (seconds since the epoch)."""
        self.complete = False
        """Whether the store was seen to have everything."""
        self.full: Optional[FullError] = None
        """Why nothing can be written, although there is a connection."""
        self.repairs: dict[bytes, int] = {}
        """Key -> how often somebody else wrote it during this connection."""
        self.began: Callable[[], None] = lambda: None
        """Called when it is known what there is, before anything is written."""
        self.wrote: Callable[[], None] = lambda: None
        """Called when everything is written."""
        self.companion = Companion()
        self._registry = registry
        self._spans = spans
        self._open = asyncio.Event()

    def want(self, values: Mapping[bytes, Optional[bytes]]) -> None:
        """Have these keys be so; None is that they are not."""
        if values:
            self.keyspace.want(values)
            self._open.set()

    async def run(self, client: Client, writer: Writer, only_if: Sequence[Created] = ()) -> None:
        """Keep them, as long as the connection lasts and the conditions hold; always raises."""
        from datapath.etcd.errors import CompactedError  # noqa: PLC0415 - gRPC is a dear import

        try:
            while True:
                with suppress(CompactedError):
                    await self._session(client, writer, only_if)
        finally:
            self.complete = False

    async def _session(self, client: Client, writer: Writer, only_if: Sequence[Created]) -> None:
        starts = await self._list(client)
        await self._take_lease(writer, only_if)
        await self.companion.prepare(client, writer)
        self.began()
        self._open.set()
        await together(
            client.watch(starts, self._take),
            writer.keep_alive(self.keyspace.lease, self.ttl, self._note_renewal),
            self._write(writer, only_if),
            self.companion.run(client, writer),
        )

    async def _list(self, client: Client) -> Mapping[Span, int]:
        """Read what there is; returns what to watch from which revision on."""
        from datapath.etcd.client import prefix  # noqa: PLC0415

        spans, revision = tuple(self._spans()), 0
        leases: list[int] = []
        async for page in client.pages(prefix(self._registry)):
            revision = page.revision
            found = [own_store.parse_lease(self._registry, each.key) for each in page.entries]
            leases += [lease for lease in found if lease]
        entries: list[Change] = []
        for span in spans:
            async for page in client.pages(span, revision):
                entries += page.entries
        self.keyspace.begin(entries, leases)
        self.repairs = {}
        return dict.fromkeys(spans, revision + 1)

    async def _take_lease(self, writer: Writer, only_if: Sequence[Created]) -> None:
        """Go on with the lease that most keys have: then they need not be written again for who publishes them."""
        counts = self.keyspace.counts()
        for lease in sorted(self.keyspace.leases, key=lambda each: counts.get(each, 0), reverse=True):
            if await writer.time_to_live(lease) == self.ttl:
                self.keyspace.lease = lease
                return
        lease = await writer.grant(self.ttl)
        self.keyspace.leases.add(lease)
        self.keyspace.lease = lease
        await _commit(writer, [Put(own_store.lease_key(self._registry, lease), b"{}", lease)], only_if)

    async def _write(self, writer: Writer, only_if: Sequence[Created]) -> None:
        from datapath.etcd.errors import FullError  # noqa: PLC0415

        keyspace = self.keyspace
        while True:
            await self._open.wait()
            self._open.clear()
            self.complete = False
            try:
                while operations := keyspace.operations():
                    for batch in batches(operations):
                        keyspace.written(batch, await _commit(writer, batch, only_if))
            except FullError as error:
                # What is there stays, if only its leases are renewed meanwhile.
                self.full = error
                await asyncio.sleep(FULL_RETRY)
                self._open.set()
                continue
            self.full = None
            keyspace.settle()
            self.complete = True
            self.wrote()

    def _take(self, changes: Sequence[Change]) -> None:
        if self.keyspace.take(changes):
            for change in changes:
                if change.value is not None and self.keyspace.is_open(change.key):
                    self.repairs[change.key] = self.repairs.get(change.key, 0) + 1
            # Not at once: who does the same for a value of its own would keep the store busy for ever.
            asyncio.get_running_loop().call_later(REPAIR, self._open.set)

    @property
    def contested(self) -> Optional[str]:
        """A key that somebody else writes again and again."""
        keys = [key for key, times in self.repairs.copy().items() if times >= MANY_REPAIRS]
        return min(keys).decode(errors="replace") if keys else None

    def _note_renewal(self) -> None:
        self.renewed = time.time()


async def _commit(writer: Writer, batch: Sequence[Operation], only_if: Sequence[Created]) -> int:
    from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415

    revision = await writer.commit(batch, only_if)
    if revision is None:
        raise StoreError(Stage.STORE, "another node publishes for the cluster now")
    return revision
