"""What is known of other clusters: services, nodes, identities and addresses, as they publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from datapath.state.model import IPAddress, IPNetwork


class ServiceName(NamedTuple):
    """The same in every cluster of a mesh."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Port(NamedTuple):
    """A port, and the protocol above IP."""

    protocol: str
    """TCP, UDP or SCTP."""
    number: int


Ports = Mapping[str, Port]
"""By name; "" is the name of a service's only port, where it has none."""


@dataclass(frozen=True)
class RemoteService:
    """A service of another cluster."""

    cluster: str
    cluster_id: int
    name: ServiceName
    frontends: Mapping[IPAddress, Ports]
    backends: Mapping[IPAddress, Ports]
    """Those that are ready: a cluster publishes no others."""
    shared: bool
    """Whether other clusters may use its backends."""


RemoteServices = Mapping[str, Mapping[ServiceName, RemoteService]]
"""Cluster -> its services."""


class NodeAddress(NamedTuple):
    """An address of a node."""

    type: str
    """InternalIP, ExternalIP, CiliumInternalIP..."""
    address: IPAddress


@dataclass(frozen=True)
class RemoteNode:
    """A node of another cluster."""

    cluster: str
    cluster_id: int
    name: str
    addresses: tuple[NodeAddress, ...]
    pod_cidrs: tuple[IPNetwork, ...]
    """Where its endpoints' addresses are from; IPv4 first, of each family the first one first."""
