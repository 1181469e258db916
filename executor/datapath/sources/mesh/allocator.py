"""Numbers of security identities: the same for the same labels on every node of a cluster.

As Cilium's allocator has it in a store: `id/NUMBER` tells its labels, and stays as long as any node refers to it by
`value/LABELS/NODE`, which ends with that node's lease. Cilium locks labels below `locks/` meanwhile; here, transactions
compare, which leaves nothing behind when a node dies: a number is only given out where none was since the last look, so
that labels never get two, and a reference is only made where the number is there still. Of nodes that come at the same
time all but one look again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Optional

from datapath.etcd.operations import Change, Created, Put, Quiet
from datapath.sources.mesh.identities import RESERVED, numbers_of, parse_identity_number
from datapath.sources.mesh.kinds import IDENTITIES
from datapath.sources.mesh.published import Cluster
from datapath.sources.mesh.values import QuarantineError

if TYPE_CHECKING:
    from datapath.etcd.client import Client
    from datapath.etcd.writes import Writer

AGAIN = 0.05
"""Most seconds until the next look after another node was faster."""


def identities_prefix(cluster: Cluster) -> str:
    """What the keys of numbers begin with."""
    return IDENTITIES.prefix(cluster.name, False)


def references_prefix(cluster: Cluster) -> str:
    """What the keys of references begin with."""
    return f"{identities_prefix(cluster).removesuffix('id/')}value/"


def reference_key(cluster: Cluster, labels: str, node: str) -> bytes:
    """Where a node refers to the identity of these labels."""
    return f"{references_prefix(cluster)}{labels}/{node}".encode()


def own_numbers(cluster: Cluster) -> range:
    """The numbers that are given out: those above the ones that Cilium keeps for itself in cluster 0."""
    numbers = numbers_of(cluster.cluster_id, cluster.max_connected_clusters)
    return numbers[RESERVED:]


@dataclass
class Known:
    """All numbers of the cluster at one revision."""

    revision: int = 0
    by_labels: dict[str, tuple[int, Change]] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)

    def note(self, number: int, entry: Change) -> None:
        """One more."""
        self.used.add(number)
        labels = (entry.value or b"").decode(errors="replace")
        # Should there be two, every node takes the same one.
        if labels not in self.by_labels or number < self.by_labels[labels][0]:
            self.by_labels[labels] = (number, entry)

    def free(self, numbers: range) -> Optional[int]:
        """A number that nobody has; by chance, so that nodes seldom choose the same."""
        if len(self.used) < len(numbers) // 2:
            while (number := random.choice(numbers)) in self.used:  # noqa: S311 - nothing is to be kept secret
                pass
            return number
        return next((number for number in numbers if number not in self.used), None)


async def read_identities(client: Client, cluster: Cluster) -> Known:
    """All that there are now."""
    from datapath.etcd.client import prefix  # noqa: PLC0415 - gRPC is a dear import

    start, known = identities_prefix(cluster), Known()
    numbers = numbers_of(cluster.cluster_id, cluster.max_connected_clusters)
    async for page in client.pages(prefix(start)):
        known.revision = page.revision
        for entry in page.entries:
            # What is no identity of the cluster is nobody's business here.
            with suppress(QuarantineError):
                number = parse_identity_number(entry.key.decode(errors="replace")[len(start) :], numbers)
                known.note(number, entry)
    return known


class Allocator:
    """One node's."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self.cluster = cluster
        self.node = node
        """What its references end with: an address of the node, as Cilium has it."""

    async def hold(
        self,
        client: Client,
        writer: Writer,
        labels: Collection[str],
        lease: int,
        current: Callable[[bytes], Optional[bytes]] = lambda _: None,
    ) -> AsyncIterator[tuple[str, int]]:
        """Labels and their number, each as soon as there is a reference to it that ends with the lease.

        `current` tells the value of a key that has the lease already. Labels that no number is left for have 0.
        """
        known = await read_identities(client, self.cluster)
        waiting = []
        for each in sorted(labels):
            number, _ = known.by_labels.get(each, (0, None))
            # First, and without a write: a store that is full takes none.
            if number and current(reference_key(self.cluster, each, self.node)) == str(number).encode():
                yield each, number
            else:
                waiting.append(each)
        while waiting:
            found = await self._hold_one(writer, waiting[-1], lease, known)
            if found is None:
                await asyncio.sleep(random.uniform(0, AGAIN))  # noqa: S311
                known = await read_identities(client, self.cluster)
            else:
                yield waiting.pop(), found

    async def _hold_one(self, writer: Writer, labels: str, lease: int, known: Known) -> Optional[int]:
        """The number; 0 where none is left, None where another node was faster."""
        from datapath.etcd.client import prefix  # noqa: PLC0415

        reference = reference_key(self.cluster, labels, self.node)
        if labels in known.by_labels:
            number, entry = known.by_labels[labels]
            put = Put(reference, str(number).encode(), lease)
            there = await writer.commit([put], [Created(entry.key, entry.created)])
            return number if there is not None else None
        free = known.free(own_numbers(self.cluster))
        if free is None:
            return 0
        span = prefix(identities_prefix(self.cluster))
        key, value = f"{identities_prefix(self.cluster)}{free}".encode(), labels.encode()
        puts = [Put(key, value), Put(reference, str(free).encode(), lease)]
        revision = await writer.commit(puts, [Quiet(span.start, span.end, known.revision)])
        if revision is None:
            return None
        # Only this node can have written since the last look.
        known.revision = revision
        known.note(free, Change(key, value, revision, created=revision))
        return free
