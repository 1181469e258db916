"""What is asked of another cluster's store before its services are read: rights, and who it is."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from datapath.sources.mesh import layout
from datapath.sources.mesh.layout import ClusterConfig
from datapath.sources.mesh.values import QuarantineError
from datapath.spec.clustermesh import parse_network
from datapath.state.model import IPNetwork

if TYPE_CHECKING:
    from datapath.etcd.client import Client


@dataclass(frozen=True)
class Rules:
    """What this cluster asks of others."""

    cluster_id: int
    """Its own."""
    max_connected_clusters: int
    networks: tuple[IPNetwork, ...]
    cache_ttl: float
    """Seconds that the services of a cluster without connection are used; 0 is for ever."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Rules:
        """By the (effective) options."""
        return cls(
            options["cluster-id"],
            options["max-connected-clusters"],
            tuple(parse_network(each) for each in options["datapath-cluster-networks"]),
            options["clustermesh-cache-ttl"],
        )


async def check_authorisation(client: Client, user: str = "a user with the role of a remote cluster") -> None:
    """A store whose every key anybody may read lets anybody write as well; `user` may not. Raises StoreError."""
    from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415 - gRPC is a dear import

    if await client.reads_everything():
        raise StoreError(
            Stage.AUTHORISATION,
            f"{client.own.common_name or 'this certificate'} may read the whole store",
            f"etcd without authentication, or a certificate of root: use {user}",
        )


async def read_config(
    client: Client, cluster: str, rules: Rules, others: Mapping[str, int], revision: int = 0
) -> ClusterConfig:
    """What the cluster says of itself; `others` are the ids of the other peers. Raises StoreError."""
    from datapath.etcd.errors import Stage, StoreError  # noqa: PLC0415

    key = layout.config_key(cluster)
    raw = await client.get(key, revision)
    if raw is None:
        hint = f"is this the store of {cluster}, and does that cluster publish itself?"
        raise StoreError(Stage.DATA, f"there is no {key}", hint)
    try:
        config = layout.parse_config(raw)
        _compare(config, rules, others)
    except QuarantineError as error:
        raise StoreError(Stage.DATA, f"{key}: {error}") from error
    return config


def _compare(config: ClusterConfig, rules: Rules, others: Mapping[str, int]) -> None:
    if config.cluster_id == rules.cluster_id:
        raise QuarantineError(f"id {config.cluster_id} is this cluster's own")
    twin = next((name for name, number in others.items() if number == config.cluster_id), None)
    if twin is not None:
        raise QuarantineError(f"id {config.cluster_id} is that of {twin} as well")
    if config.max_connected_clusters != rules.max_connected_clusters:
        own = rules.max_connected_clusters
        raise QuarantineError(f"maxConnectedClusters is {config.max_connected_clusters}, and {own} in this cluster")


def heartbeat_time(raw: Optional[bytes]) -> Optional[float]:
    """When a heartbeat was (seconds since the epoch); None without one that can be read."""
    try:
        text = (raw or b"").decode("ascii").replace("Z", "+00:00")
        # Go writes nanoseconds, which Python reads only from 3.11 on.
        whole, dot, rest = text.partition(".")
        zone = rest.lstrip("0123456789")
        return datetime.datetime.fromisoformat(whole + zone if dot else text).timestamp()
    except (ValueError, OverflowError):
        return None
