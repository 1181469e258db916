"""Reads what a store has of some kinds, and follows it, over one connection."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from datapath.sources.mesh.kinds import Origin
from datapath.sources.mesh.table import Table

if TYPE_CHECKING:
    from datapath.etcd.client import Client, Span
    from datapath.etcd.operations import Change

log = logging.getLogger(__name__)

_Taker = Callable[[bytes, Optional[bytes]], Optional["Sequence[Span]"]]
"""Takes the change of a key; returns what is to be listed again."""


class _Spans(NamedTuple):
    """Where a kind is in the store."""

    values: Span
    synced: Span


class _ListAgainError(Exception):
    """The cluster has just told that all it has of a kind is published."""


class Watcher:
    """Tables of one cluster, and single keys beside them.

    `singles` are called with the value of their key, now and whenever it changes; `settled` whenever a table was read.
    """

    def __init__(
        self,
        client: Client,
        origin: Origin,
        tables: Iterable[Table[Any, Any]],
        singles: Mapping[str, Callable[[Optional[bytes]], None]],
        settled: Callable[[], None],
    ) -> None:
        from datapath.etcd.client import Span, prefix  # noqa: PLC0415 - gRPC is a dear import

        place = (origin.cluster, origin.config.cached)
        self._client = client
        self._origin = origin
        self._singles = {Span(key.encode()): taker for key, taker in singles.items()}
        self._settled = settled
        self._spans = {
            table: _Spans(prefix(table.kind.prefix(*place)), Span(table.kind.synced(*place).encode()))
            for table in tables
        }
        """What may be read."""
        self._takers: dict[Span, _Taker] = {
            span: functools.partial(self._take_single, taker) for span, taker in self._singles.items()
        }
        for table, spans in self._spans.items():
            self._takers[spans.values] = functools.partial(self._take_value, table)
            self._takers[spans.synced] = functools.partial(self._take_synced, table)
        self._positions: dict[Span, int] = {}
        """Of what has been read: up to which revision all is known."""

    async def run(self) -> None:
        """Until something fails; always raises."""
        from datapath.etcd.errors import CompactedError  # noqa: PLC0415

        while True:
            with suppress(_ListAgainError):
                try:
                    await self._read()
                    await self._watch()
                except CompactedError:
                    self._positions.clear()

    async def _watch(self) -> None:
        starts = {span: revision + 1 for span, revision in self._positions.items()}
        if not starts:
            # Nothing of all this may be read.
            await asyncio.Event().wait()
        await self._client.watch(starts, self._take)

    async def _read(self) -> None:
        """Read what is not known up to some revision."""
        from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415

        for table, spans in list(self._spans.items()):
            if spans.values in self._positions:
                continue
            try:
                await self._list(table, spans)
            except StoreError as error:
                if table.kind.required or error.stage is not Stage.AUTHORISATION:
                    raise
                log.warning("cluster %s: %s: %s", self._origin.cluster, table.kind.name, error.message)
                table.denied = error.message
                del self._spans[table], self._takers[spans.values], self._takers[spans.synced]
            self._settled()
        for span, taker in self._singles.items():
            if span not in self._positions:
                # Of the revision from which on it is watched.
                revision = max(self._positions.values())
                taker(await self._client.get(span.text, revision))
                self._positions[span] = revision

    async def _list(self, table: Table[Any, Any], spans: _Spans) -> None:
        """Read everything of a kind, and remove what is not published any more."""
        present: set[Any] = set()
        quarantined, table.quarantined = table.quarantined, {}
        revision = 0
        try:
            async for page in self._client.pages(spans.values):
                revision = page.revision
                names = (table.put(key, value, self._origin) for key, value in page.values.items())
                present.update(name for name in names if name is not None)
                table.flush()
        except BaseException:
            table.quarantined = {**quarantined, **table.quarantined}
            raise
        # All of the same revision: what was published between two readings would count as gone.
        canary = await self._client.get(spans.synced.text, revision)
        table.synced = canary is not None or not self._origin.config.synced_canaries
        if table.synced:
            table.keep(present)
        self._positions.update(dict.fromkeys(spans, revision))

    def _take(self, changes: Sequence[Change]) -> None:
        """Changes that a watch tells."""
        again: list[Span] = []
        for change in changes:
            span = next((each for each in self._takers if change.key in each), None)
            if span is None:
                continue
            self._positions[span] = change.revision
            again += self._takers[span](change.key, change.value) or ()
        for table in self._spans:
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

    @staticmethod
    def _take_single(taker: Callable[[Optional[bytes]], None], _: bytes, value: Optional[bytes]) -> None:
        taker(value)
