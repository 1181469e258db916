"""What this cluster publishes: keys, and values in Cilium's JSON, from desired state and health (pure)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from datapath.sources.merge import Health, judged_state
from datapath.sources.mesh.kinds import IDENTITIES, IPS, NODES, SERVICES, Kind
from datapath.sources.mesh.layout import ClusterConfig, dump_config, dump_service
from datapath.sources.mesh.nodes import dump_node
from datapath.sources.mesh.values import LARGEST_VALUE
from datapath.spec.global_services import by_mesh_name, port_names
from datapath.state.model import BackendState, IPAddress, MeshNode, Service
from datapath.state.remote import NodeAddress, Port, RemoteNode, RemoteService, ServiceName

INTERNAL = "InternalIP"
"""What Kubernetes calls an address that nodes reach each other at."""
LATER_KINDS: tuple[Kind[Any, Any], ...] = (NODES, IDENTITIES, IPS)
"""What nodes publish each for itself, so that all of it is there only some time after their store is."""

Changes = dict[bytes, Optional[bytes]]
"""Key -> its new value; None where nothing is to be published there any more."""


@dataclass(frozen=True)
class Cluster:
    """Who publishes."""

    name: str
    cluster_id: int
    max_connected_clusters: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Cluster:
        """By the (effective) options."""
        return cls(options["cluster-name"], options["cluster-id"], options["max-connected-clusters"])


def timestamp(when: Optional[datetime.datetime] = None) -> bytes:
    """A time as in RFC 3339, as heartbeats and canaries have it; now unless given."""
    when = when or datetime.datetime.now(datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def config_value(cluster: Cluster) -> bytes:
    """The cluster's own words about itself."""
    return dump_config(ClusterConfig(cluster.cluster_id, True, cluster.max_connected_clusters, False))


def node_key(cluster: Cluster, name: str) -> bytes:
    """Where a node publishes itself."""
    return f"{NODES.prefix(cluster.name, False)}{name}".encode()


def node_value(cluster: Cluster, name: str, node: MeshNode) -> bytes:
    """The node as other clusters read it."""
    addresses = tuple(NodeAddress(INTERNAL, each) for each in node.addresses)
    networks = sorted(node.pod_cidrs, key=lambda each: each.version)
    return dump_node(RemoteNode(cluster.name, cluster.cluster_id, name, addresses, tuple(networks)))


def service_key(cluster: Cluster, name: ServiceName) -> bytes:
    """Where a service is published."""
    return f"{SERVICES.prefix(cluster.name, False)}{name}".encode()


def published_service(
    cluster: Cluster, name: ServiceName, services: Sequence[Service], health: Health
) -> RemoteService:
    """Services of this node that are `name` in the mesh, with the backends that others may use now.

    Those are the active ones that are healthy: a service without any is published without backends.
    """
    frontends: dict[IPAddress, dict[str, Port]] = {}
    backends: dict[IPAddress, dict[str, Port]] = {}
    for service in services:
        names = port_names(service)
        for frontend in service.frontends:
            port = Port(frontend.protocol.name, frontend.port)
            frontends.setdefault(frontend.address, {})[names[frontend.protocol, frontend.port]] = port
        for backend in service.backends:
            if judged_state(service, backend, health) is BackendState.ACTIVE:
                ports = {word: Port(protocol.name, backend.port) for (protocol, _), word in names.items()}
                backends.setdefault(backend.address, {}).update(ports)
    return RemoteService(cluster.name, cluster.cluster_id, name, frontends, backends, services[0].shared)


class PublishedServices:
    """Values of the cluster's global services, worked out again only for what changed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.oversized: dict[ServiceName, int] = {}
        """Services whose value is larger than any reader takes, and its bytes."""
        self._groups: Mapping[ServiceName, tuple[Service, ...]] = {}
        self._names: dict[str, ServiceName] = {}
        """Service of this node -> what it is in the mesh."""
        self._health: dict[Any, bool] = {}

    def update(self, services: Sequence[Service], health: Health) -> Changes:
        """What these services ask for that was not asked for before."""
        before, self._groups = self._groups, by_mesh_name(services)
        self._names = {each.name: name for name, group in self._groups.items() for each in group}
        names = {name for name, group in self._groups.items() if before.get(name) != group}
        changed = self._changed_health({**dict.fromkeys(self._health.keys() - health.keys(), True), **health})
        self._health = dict(health)
        gone = before.keys() - self._groups.keys()
        for name in gone:
            self.oversized.pop(name, None)
        removed: Changes = {service_key(self.cluster, name): None for name in gone}
        return {**removed, **self._values(names | changed)}

    def health_changed(self, changes: Health) -> Changes:
        """What results of health checks change."""
        return self._values(self._changed_health(changes))

    def _changed_health(self, changes: Health) -> set[ServiceName]:
        changed = {key for key, healthy in changes.items() if self._health.get(key, True) != healthy}
        self._health.update({key: changes[key] for key in changed})
        return {self._names[key.service] for key in changed if key.service in self._names}

    def _values(self, names: set[ServiceName]) -> Changes:
        found: Changes = {}
        for name in sorted(names):
            value = dump_service(published_service(self.cluster, name, self._groups[name], self._health))
            fits = len(value) <= LARGEST_VALUE
            if fits:
                self.oversized.pop(name, None)
            else:
                self.oversized[name] = len(value)
            found[service_key(self.cluster, name)] = value if fits else None
        return found
