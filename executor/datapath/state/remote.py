"""What is known of other clusters: services, nodes, identities and addresses, as they publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Optional

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


class Label(NamedTuple):
    """One label of an identity."""

    source: str
    """Who says so: k8s, container..."""
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.source}:{self.key}={self.value}"


class RemoteIdentity(NamedTuple):
    """What endpoints with the same labels are for policies. There may be tens of thousands: a tuple is smallest."""

    number: int
    """Tells its cluster too."""
    labels: str
    """`source:key=value;` of each, sorted."""


class Prefix(NamedTuple):
    """An address, or a network of them."""

    address: IPAddress
    length: int

    @property
    def is_host(self) -> bool:
        """Whether it is one address."""
        return self.length == self.address.max_prefixlen

    def __str__(self) -> str:
        return str(self.address) if self.is_host else f"{self.address}/{self.length}"


class RemoteIP(NamedTuple):
    """Whose an address is."""

    prefix: Prefix
    identity: int
    """Of the cluster, or one below 256, which is the same in all."""
    host: Optional[IPAddress]
    """Of the node that it is behind."""
    namespace: str
    """"" where the cluster does not tell, as `name`."""
    name: str
    """Of the endpoint (pod)."""
