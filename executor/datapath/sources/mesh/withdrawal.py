"""Takes back what a node published, at once instead of when its leases end."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from datapath.sources.mesh import own_store
from datapath.state.model import OwnStore

if TYPE_CHECKING:
    from datapath.etcd.client import Client

log = logging.getLogger(__name__)


async def withdraw(store: OwnStore, cluster: str, node: str) -> bool:
    """End what `node` published; what is the cluster's only where no other node could publish it.

    False where the store cannot be reached: its leases end by themselves.
    """
    from datapath.etcd.client import connect  # noqa: PLC0415 - gRPC is a dear import
    from datapath.etcd.dial import Credentials  # noqa: PLC0415
    from datapath.etcd.errors import StoreError  # noqa: PLC0415

    try:
        client = await connect(store.endpoints, Credentials.of(store))
        try:
            await _end(client, own_store.leases_prefix(cluster, own_store.node_owner(node)))
            if store.publisher and not await _others(client, cluster, node):
                await _end(client, own_store.leases_prefix(cluster, own_store.CLUSTER))
        finally:
            client.close()
    except StoreError as error:
        log.warning("own store: %s; what this node published ends with its leases", error)
        return False
    log.info("own store: what this node published is withdrawn")
    return True


async def _others(client: Client, cluster: str, node: str) -> bool:
    """Whether there are other candidates, who go on with what is published."""
    from datapath.etcd.client import prefix  # noqa: PLC0415

    async for page in client.pages(prefix(own_store.candidates_prefix(cluster))):
        if any(own_store.parse_candidate(value) != node for value in page.values.values()):
            return True
    return False


async def _end(client: Client, registry: str) -> None:
    """End the leases of an owner, and with them all of its keys."""
    from datapath.etcd.client import prefix  # noqa: PLC0415
    from datapath.etcd.errors import LeaseGoneError  # noqa: PLC0415
    from datapath.etcd.writes import Writer  # noqa: PLC0415

    writer = Writer(client)
    async for page in client.pages(prefix(registry)):
        for lease in (own_store.parse_lease(registry, each.key) for each in page.entries):
            if lease:
                with suppress(LeaseGoneError):
                    await writer.revoke(lease)
