"""Where things are in a cluster's store, and what they look like there: Cilium's keys and JSON values (pure).

What comes from a store was written by somebody else. A value that is not what its key says is refused, with the
reason, by `QuarantineError`. Fields that are not used here may be anything: later versions of Cilium add some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from datapath.sources.mesh.values import (
    QuarantineError,
    check_address,
    expect,
    parse_text_address,
    read_boolean,
    read_document,
    read_integer,
    read_mapping,
    write_document,
)
from datapath.spec.clustermesh import CLUSTERS, NAME, NAMESPACE
from datapath.state.model import IPAddress, IPNetwork
from datapath.state.remote import Port, Ports, RemoteService, ServiceName

HEARTBEAT = "cilium/.heartbeat"
QUIET = 120.0
"""Seconds without a heartbeat that are too many: Cilium counts two minutes as an error."""
PROTOCOLS = ("TCP", "UDP", "SCTP")
_PORT_NAME = re.compile(r"[-._a-zA-Z0-9]{0,63}", re.ASCII)


@dataclass(frozen=True)
class ClusterConfig:
    """What a cluster says of itself."""

    cluster_id: int
    synced_canaries: bool
    """Whether it tells when everything that it had was published."""
    max_connected_clusters: int
    cached: bool
    """Whether what is in this store is a copy (kvstoremesh), which has a place of its own."""


def config_key(cluster: str) -> str:
    """Where a cluster says what it is."""
    return f"cilium/cluster-config/{cluster}"


def area(cached: bool) -> str:
    """The place of what a cluster publishes itself, or of a copy."""
    return "cilium/cache" if cached else "cilium/state"


def key_text(key: bytes) -> str:
    """A key that can be shown."""
    text = key.decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)[1:-1]


def parse_config(raw: bytes) -> ClusterConfig:
    """A cluster's own words about itself. Raises QuarantineError."""
    document = read_document(raw)
    cluster_id = read_integer(document, "id", 0, max(CLUSTERS))
    if cluster_id == 0:
        raise QuarantineError("id: 0 is not the id of a cluster that others can connect to")
    capabilities = read_mapping(document, "capabilities")
    most = read_integer(capabilities, "maxConnectedClusters", 0, max(CLUSTERS)) or CLUSTERS[0]
    if most not in CLUSTERS:
        raise QuarantineError(f"capabilities.maxConnectedClusters: {most} is not 255 or 511")
    if cluster_id > most:
        raise QuarantineError(f"id: {cluster_id} is more than maxConnectedClusters, which is {most}")
    synced, cached = (read_boolean(capabilities, name) for name in ("syncedCanaries", "cached"))
    return ClusterConfig(cluster_id, synced, most, cached)


def dump_config(config: ClusterConfig) -> bytes:
    """The words as `parse_config` and Cilium read them."""
    capabilities = {
        "syncedCanaries": config.synced_canaries,
        "maxConnectedClusters": config.max_connected_clusters,
        # Services of several clusters by their own resources: known, and not used.
        "serviceExportsEnabled": False,
    }
    cached = {"cached": True} if config.cached else {}
    document = {"id": config.cluster_id, "capabilities": {**capabilities, **cached}}
    return write_document(document)


def parse_service_name(rest: str) -> ServiceName:
    """The service whose key ends so. Raises QuarantineError."""
    namespace, slash, name = rest.partition("/")
    if not slash or not NAMESPACE.fullmatch(namespace) or not NAME.fullmatch(name):
        raise QuarantineError("the key does not end with NAMESPACE/NAME")
    return ServiceName(namespace, name)


def parse_service(
    raw: bytes, cluster: str, cluster_id: int, name: ServiceName, own: Sequence[IPNetwork] = ()
) -> RemoteService:
    """The service `name` of a cluster; `own` are networks that only this cluster has. Raises QuarantineError."""
    document = read_document(raw)
    expect(document, "cluster", cluster)
    expect(document, "namespace", name.namespace)
    expect(document, "name", name.name)
    expect(document, "clusterID", cluster_id)
    frontends, backends = (_places(document, field) for field in ("frontends", "backends"))
    for address in backends:
        check_address(address, "backends", own)
    return RemoteService(cluster, cluster_id, name, frontends, backends, read_boolean(document, "shared"))


def dump_service(service: RemoteService) -> bytes:
    """The service as `parse_service` and Cilium read it."""
    document = {
        "cluster": service.cluster,
        "namespace": service.name.namespace,
        "name": service.name.name,
        "frontends": _dump_places(service.frontends),
        "backends": _dump_places(service.backends),
        "hostnames": {},
        "labels": {},
        "selector": {},
        "includeExternal": True,
        "shared": service.shared,
        "clusterID": service.cluster_id,
    }
    return write_document(document)


def _dump_places(places: Mapping[IPAddress, Ports]) -> dict[str, Any]:
    return {
        str(address): {name: {"Protocol": port.protocol, "Port": port.number} for name, port in sorted(ports.items())}
        for address, ports in sorted(places.items(), key=lambda each: (each[0].version, int(each[0])))
    }


def _places(document: Mapping[str, Any], field: str) -> Mapping[IPAddress, Ports]:
    """Address -> its ports."""
    found: dict[IPAddress, Ports] = {}
    for text, ports in read_mapping(document, field).items():
        address = parse_text_address(text, field)
        if address in found:
            raise QuarantineError(f"{field}: {address} is there twice")
        found[address] = _ports(ports, f"{field}.{address}")
    return MappingProxyType(found)


def _ports(raw: object, path: str) -> Ports:
    if not isinstance(raw, dict):
        raise QuarantineError(f"{path}: {raw!r:.80} is not an object")
    found = {}
    for name, port in raw.items():
        where = f"{path}.{name!r:.80}"
        if not _PORT_NAME.fullmatch(name):
            raise QuarantineError(f"{where}: not the name of a port")
        if not isinstance(port, dict) or port.get("Protocol") not in PROTOCOLS:
            raise QuarantineError(f"{where}: no protocol of {', '.join(PROTOCOLS)}")
        number = port.get("Port")
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 65535:
            raise QuarantineError(f"{where}: {number!r:.80} is not a port")
        found[name] = Port(port["Protocol"], number)
    return MappingProxyType(found)
