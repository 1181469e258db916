"""What a cluster publishes: kinds of keys and values, and whose they are (pure)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Callable, Generic, TypeVar

from datapath.sources.mesh import layout
from datapath.sources.mesh.identities import numbers_of, parse_identity, parse_identity_number
from datapath.sources.mesh.ips import parse_ip, parse_prefix
from datapath.sources.mesh.layout import ClusterConfig, parse_service, parse_service_name
from datapath.sources.mesh.nodes import parse_node, parse_node_name
from datapath.sources.mesh.values import QuarantineError
from datapath.state.model import IPNetwork

N = TypeVar("N", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Origin:
    """Whose store is read, and what it cannot be about."""

    cluster: str
    config: ClusterConfig
    own: tuple[IPNetwork, ...]
    """Networks that only this cluster has."""

    @property
    def cluster_id(self) -> int:
        """The cluster's."""
        return self.config.cluster_id

    @property
    def numbers(self) -> range:
        """Of the cluster's identities."""
        return numbers_of(self.config.cluster_id, self.config.max_connected_clusters)


@dataclass(frozen=True)
class Kind(Generic[N, V]):
    """One kind of what is published, each thing of it under a key of its own."""

    name: str
    """For people, in the plural."""
    path: str
    """Its part of keys, as in the key that tells that all of it is published."""
    below: str
    """Where below `path` what a cluster publishes itself is."""
    below_cached: str
    """The same of a copy, which may be of several clusters."""
    parse_name: Callable[[str, Origin], N]
    """What the rest of a key names. Raises QuarantineError."""
    parse: Callable[[bytes, N, Origin], V]
    """What a value says of what its key names. Raises QuarantineError."""
    required: bool = False
    """Whether a cluster is of no use that does not let this be read."""

    def prefix(self, cluster: str, cached: bool) -> str:
        """What the keys of a cluster's begin with."""
        below = (self.below_cached if cached else self.below).format(cluster=cluster)
        return f"{layout.area(cached)}/{self.path}/{below}/"

    def synced(self, cluster: str, cached: bool) -> str:
        """The key that is there once all that a cluster has of it is published."""
        return f"cilium/synced/{cluster}/{layout.area(cached)}/{self.path}"

    def name_of(self, key: bytes, origin: Origin) -> N:
        """What a key is about. Raises QuarantineError."""
        try:
            text = key.decode("ascii")
        except UnicodeDecodeError:
            raise QuarantineError("the key is not ASCII text") from None
        return self.parse_name(text[len(self.prefix(origin.cluster, origin.config.cached)) :], origin)


SERVICES = Kind(
    "services",
    "services/v1",
    "{cluster}",
    "{cluster}",
    lambda rest, _: parse_service_name(rest),
    lambda raw, name, origin: parse_service(raw, origin.cluster, origin.cluster_id, name, origin.own),
    required=True,
)
NODES = Kind(
    "nodes",
    "nodes/v1",
    "{cluster}",
    "{cluster}",
    lambda rest, _: parse_node_name(rest),
    lambda raw, name, origin: parse_node(raw, origin.cluster, origin.cluster_id, name, origin.own),
)
# Numbers tell whose they are. Beside `id` are references of nodes (`value`) and locks, which are nobody else's.
IDENTITIES = Kind(
    "identities",
    "identities/v1",
    "id",
    "{cluster}/id",
    lambda rest, origin: parse_identity_number(rest, origin.numbers),
    lambda raw, number, origin: parse_identity(raw, origin.cluster, number),
)
IPS = Kind(
    "ips",
    "ip/v1",
    "default",
    "{cluster}",
    lambda rest, _: parse_prefix(rest),
    lambda raw, prefix, origin: parse_ip(raw, origin.numbers, prefix, origin.own),
)
KINDS: tuple[Kind[Any, Any], ...] = (SERVICES, NODES, IDENTITIES, IPS)
"""In the order in which they are read: what serves first."""
