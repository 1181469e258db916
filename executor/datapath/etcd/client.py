"""A connection to a store: ranges page by page, watches, and what it is.

Everything raises `StoreError`, in words. Where the store is silent for longer than `SILENCE`, it counts as dead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Optional, TypeVar

from grpclib import GRPCError
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.exceptions import ProtocolError, StreamTerminatedError

from datapath.etcd import rpc_pb2 as rpc
from datapath.etcd.certificates import Certificate
from datapath.etcd.dial import Credentials, Reached, reach
from datapath.etcd.errors import Stage, StoreError, explain_call, explain_cancelled
from datapath.etcd.operations import Change
from datapath.etcd.waiting import within
from datapath.state.model import StoreEndpoint

Q = TypeVar("Q")
A = TypeVar("A")

CALL_TIMEOUT = 10.0
"""Seconds for one answer; a page of large values over a slow line takes a while."""
BEAT = 2.0
"""Seconds between questions on a watch for whether the store is still there."""
SILENCE = 5.0
"""Seconds without any answer after which it is not."""
PAGE = 200
"""Keys of one answer."""
FAILURES = (GRPCError, StreamTerminatedError, ProtocolError, OSError, EOFError, asyncio.TimeoutError)
# A member that has lost its leader ends the watch then, where it would go on without news.
_NEEDS_LEADER = (("hasleader", "true"),)


class Span(NamedTuple):
    """Keys that are asked for together: from `start` to before `end`, or `start` alone where that is empty."""

    start: bytes
    end: bytes = b""

    @property
    def text(self) -> str:
        """For people."""
        return self.start.decode(errors="replace")

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and (self.start <= key < self.end if self.end else key == self.start)


def prefix(start: str) -> Span:
    """All keys that begin so; `start` is not empty and ends with an ASCII character."""
    first = start.encode()
    return Span(first, first[:-1] + bytes((first[-1] + 1,)))


EVERYTHING = Span(b"\0", b"\0")
"""Every key, by etcd's convention."""


@dataclass(frozen=True)
class Page:
    """Part of a range."""

    revision: int
    """Of the store, the same for all pages."""
    entries: Sequence[Change]

    @cached_property
    def values(self) -> Mapping[bytes, bytes]:
        """Key -> value."""
        return {each.key: each.value for each in self.entries if each.value is not None}


class Client:
    """One connection; made by `connect`, over once anything failed."""

    def __init__(self, reached: Reached, own: Certificate, channel: Channel) -> None:
        self.reached = reached
        self.own = own
        """The node's certificate that the connection was made with."""
        self.channel = channel
        self._range = UnaryUnaryMethod(channel, "/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse)
        self._watch = StreamStreamMethod(channel, "/etcdserverpb.Watch/Watch", rpc.WatchRequest, rpc.WatchResponse)
        self._status = UnaryUnaryMethod(
            channel, "/etcdserverpb.Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse
        )

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    async def get(self, key: str, revision: int = 0) -> Optional[bytes]:
        """The value of a key, at a revision or now. Raises CompactedError too."""
        answer = await self._ask(Span(key.encode()), limit=1, revision=revision)
        return answer.kvs[0].value if answer.kvs else None

    async def pages(self, span: Span, revision: int = 0) -> AsyncIterator[Page]:
        """Everything in `span` as it was at one revision, the newest where that is 0. Raises CompactedError too."""
        start, more = span.start, True
        while more:
            answer = await self._ask(Span(start, span.end), limit=PAGE, revision=revision)
            revision = revision or answer.header.revision
            yield Page(revision, [_change(each) for each in answer.kvs])
            more = answer.more and bool(answer.kvs)
            if more:
                start = answer.kvs[-1].key + b"\0"

    async def watch(self, starts: Mapping[Span, int], changed: Callable[[Sequence[Change]], None]) -> None:
        """Tell what changes in each span from its revision on, until something fails; always raises.

        CompactedError where a revision is no longer kept.
        """
        what = ", ".join(span.text for span in starts)
        try:
            async with self._watch.open(metadata=_NEEDS_LEADER) as stream:
                for span, revision in starts.items():
                    create = rpc.WatchCreateRequest(key=span.start, range_end=span.end, start_revision=revision)
                    await stream.send_message(rpc.WatchRequest(create_request=create))
                beat = asyncio.ensure_future(_beat(stream.send_message))
                try:
                    while True:
                        answer = await within(stream.recv_message(), SILENCE)
                        _tell(answer, what, changed)
                finally:
                    beat.cancel()
                    with contextlib.suppress(asyncio.CancelledError, *FAILURES):
                        await beat
        except FAILURES as error:
            raise explain_call(error, f"watching {what}") from error

    async def count(self, span: Span) -> int:
        """How many keys there are."""
        return (await self._ask(span, limit=0, count_only=True)).count

    async def version(self) -> str:
        """The version of etcd."""
        return (await self.call(self._status, rpc.StatusRequest(), "the status")).version

    async def reads_everything(self) -> bool:
        """Whether this node's certificate may read keys that nobody has a reason to let it read."""
        try:
            await self._ask(EVERYTHING, limit=1, keys_only=True)
        except StoreError as error:
            if error.stage is Stage.AUTHORISATION:
                return False
            raise
        return True

    async def call(self, method: UnaryUnaryMethod[Q, A], request: Q, what: str) -> A:
        """The answer to one question; `what` says in words what was asked for."""
        try:
            return await method(request, timeout=CALL_TIMEOUT)
        except FAILURES as error:
            raise explain_call(error, what) from error

    async def _ask(
        self, span: Span, *, limit: int, revision: int = 0, keys_only: bool = False, count_only: bool = False
    ) -> rpc.RangeResponse:
        request = rpc.RangeRequest(
            key=span.start,
            range_end=span.end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
        )
        return await self.call(self._range, request, f"reading {span.text}")


def _tell(answer: Optional[rpc.WatchResponse], what: str, changed: Callable[[Sequence[Change]], None]) -> None:
    if answer is None:
        raise StoreError(Stage.STORE, "the store ended the watch")
    if answer.canceled:
        raise explain_cancelled(answer.cancel_reason, answer.compact_revision, f"watching {what}")
    if answer.events:
        changed([_change(each.kv, each.type == rpc.Event.DELETE) for each in answer.events])


def _change(found: rpc.KeyValue, deleted: bool = False) -> Change:
    value = None if deleted else found.value
    return Change(found.key, value, found.mod_revision, found.lease, found.create_revision)


async def _beat(send: Callable[[rpc.WatchRequest], object]) -> None:
    question = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
    while True:
        await asyncio.sleep(BEAT)
        await send(question)  # type: ignore[misc]


async def connect(endpoints: Sequence[StoreEndpoint], credentials: Credentials) -> Client:
    """A connection to the first endpoint that can be reached; raises the StoreError of the last one otherwise."""
    context, own = credentials.load()
    failure: Optional[StoreError] = None
    for endpoint in endpoints:
        try:
            reached = await reach(endpoint, context, credentials.ca)
        except StoreError as error:
            failure = error
            continue
        config = Configuration(ssl_target_name_override=endpoint.host)
        return Client(reached, own, Channel(reached.address, endpoint.port, ssl=context, config=config))
    raise failure or StoreError(Stage.DNS, "there is no endpoint")
