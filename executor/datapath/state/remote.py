"""What is known of other clusters: services, as they publish them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from datapath.state.model import IPAddress


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
