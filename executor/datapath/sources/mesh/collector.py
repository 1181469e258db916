"""Frees identities that no node refers to any more, for the cluster: as Cilium's operator does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from datapath.etcd.operations import Created, Delete, Quiet, Requirement
from datapath.sources.mesh.allocator import read_identities, reference_key, references_prefix
from datapath.sources.mesh.published import Cluster

if TYPE_CHECKING:
    from datapath.etcd.client import Client
    from datapath.etcd.writes import Writer

log = logging.getLogger(__name__)

INTERVAL = 900.0
"""Seconds between rounds, as Cilium's `identity-gc-interval`. What is unused in two rounds in a row is freed."""


async def collect(client: Client, writer: Writer, cluster: Cluster, mandate: Created) -> None:
    """Go on for as long as the node is elected; always raises."""
    unused: Mapping[bytes, int] = {}
    while True:
        await asyncio.sleep(INTERVAL)
        unused = await collect_once(client, writer, cluster, mandate, unused)


async def collect_once(
    client: Client, writer: Writer, cluster: Cluster, mandate: Created, before: Mapping[bytes, int]
) -> Mapping[bytes, int]:
    """Free what is unused, and was so `before`; returns what is so now: key of the identity -> when it came to be."""
    from datapath.etcd.client import prefix  # noqa: PLC0415 - gRPC is a dear import

    known = await read_identities(client, cluster)
    start = references_prefix(cluster)
    used: set[str] = set()
    async for page in client.pages(prefix(start), known.revision):
        used.update(key.decode(errors="replace")[len(start) :].rpartition("/")[0] for key in page.values)
    unused = {}
    for labels, (number, entry) in known.by_labels.items():
        if labels in used:
            continue
        if before.get(entry.key) != entry.created:
            unused[entry.key] = entry.created
            continue
        # A node that refers to it from now on is either first, or finds it gone.
        span = prefix(reference_key(cluster, labels, "").decode(errors="replace"))
        conditions: list[Requirement] = [mandate, Created(entry.key, entry.created), Quiet(span.start, span.end, 0)]
        if await writer.commit([Delete(entry.key)], conditions) is not None:
            log.info("identity %d is free: %s", number, labels)
    return unused
