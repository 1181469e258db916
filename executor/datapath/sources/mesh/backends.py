"""Backends of other clusters for a global service of this node (pure)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Optional

from datapath.spec.global_services import name_in_mesh, port_names
from datapath.state.model import Backend, IPAddress, Protocol, Service
from datapath.state.remote import Ports, RemoteService, RemoteServices


@dataclass
class Foreign:
    """What other clusters have for one service."""

    backends: list[tuple[str, Backend]] = field(default_factory=list)
    """Cluster and backend, each address and port once, in an order that is the same everywhere."""
    remarks: list[str] = field(default_factory=list)
    crowded: bool = False
    """Whether there are more than may be taken."""


def foreign(service: Service, remote: RemoteServices, vips: frozenset[IPAddress], most: int) -> Foreign:
    """Backends that other clusters share for `service`, at most `most`.

    `vips` are the addresses of this node's services: a packet that is sent there would come back.
    """
    found = Foreign()
    name = name_in_mesh(service)
    if name is None:
        return found
    taken = {(backend.address, backend.port) for backend in service.backends}
    for cluster in sorted(remote):
        published = remote[cluster].get(name)
        if published is None or not published.shared:
            continue
        candidates = list(_candidates(service, published, found.remarks))
        for backend in candidates:
            if (backend.address, backend.port) in taken:
                continue
            if backend.address in vips:
                found.remarks.append(f"cluster {cluster}: service {name}: backend {backend} is a VIP of this node")
                continue
            taken.add((backend.address, backend.port))
            found.backends.append((cluster, backend))
    if len(found.backends) > most:
        found.crowded = True
        message = f"service {service.name}: {len(found.backends)} backends of other clusters, of which {most} fit"
        found.remarks.append(f"{message} (bpf-lb-maglev-table-size, bpf-lb-service-backend-map-max)")
        del found.backends[max(most, 0) :]
    return found


def _candidates(service: Service, published: RemoteService, remarks: list[str]) -> Iterator[Backend]:
    """Backends of the service's family that serve all of its protocols, by address and port."""
    used = sorted({frontend.protocol for frontend in service.frontends}, key=lambda each: each.name)
    names = {protocol.name: _port_name(protocol, service, published) for protocol in used}
    missing = [protocol for protocol, name in names.items() if name is None]
    if missing:
        if published.backends:
            what = f"cluster {published.cluster}: service {published.name}: none of its ports"
            remarks.append(f"{what} is one that this node's service has ({', '.join(missing)})")
        return
    version = service.frontends[0].address.version
    for address in sorted((each for each in published.backends if each.version == version), key=int):
        ports = published.backends[address]
        numbers = {
            ports[name].number if name in ports and ports[name].protocol == protocol else None
            for protocol, name in names.items()
            if name is not None
        }
        # A backend is one for all protocols of a service.
        number = numbers.pop() if len(numbers) == 1 else None
        if number is not None:
            yield Backend(address, number)


def _port_name(protocol: Protocol, service: Service, published: RemoteService) -> Optional[str]:
    """The name of the published port that is the service's own: its name, or its frontends' ports, or the only one."""
    own = {number: name for (each, number), name in port_names(service).items() if each is protocol}
    every = _names(published.backends, protocol.name)
    same = every & set(own.values()) if service.port_name else set()
    same = same or _names(published.frontends, protocol.name, own) or every
    # Several names may be one port of every backend, as where a service has several frontends for it.
    ports = {tuple(each.get(name) for each in published.backends.values()) for name in same}
    return min(same) if len(ports) == 1 else None


def _names(places: Mapping[IPAddress, Ports], protocol: str, numbers: Optional[Container[int]] = None) -> set[str]:
    return {
        name
        for ports in places.values()
        for name, port in ports.items()
        if port.protocol == protocol and (numbers is None or port.number in numbers)
    }
