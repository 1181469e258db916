"""Services that several clusters have: what they are called in the mesh, and what contradicts there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec import scalars
from datapath.spec.clustermesh import service_name
from datapath.spec.errors import RefusedError, in_lower_case
from datapath.spec.fields import Fields, Violations
from datapath.spec.modes import mode_of
from datapath.state.model import Affinity, Mode, Protocol, Service
from datapath.state.remote import ServiceName

GLOBAL_FIELDS = ("affinity", "shared", "mesh_name", "port_name")
"""Those that say something only about a global service."""
NAME_FORM = "NAME (in namespace default) or NAMESPACE/NAME"
PORT_FORM = "1 to 63 of a-z, 0-9 and -, neither first nor last a -"
LONGEST_PORT = 63
"""Characters that the name of a port may have, as in Kubernetes."""
_PORT = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)


@dataclass(frozen=True)
class MeshFields:
    """What an item says about the mesh."""

    is_global: bool
    affinity: Affinity
    shared: bool
    mesh_name: str
    port_name: str


def parse_fields(fields: Fields) -> MeshFields:
    """Read them of one service."""
    is_global = fields.take_or("global", scalars.parse_bool, False)
    if not is_global:
        fields.refuse_others(GLOBAL_FIELDS, "has no effect on a service that is not global")
    choices = tuple(each.value for each in Affinity)
    return MeshFields(
        is_global,
        fields.take_or("affinity", lambda raw: Affinity(scalars.parse_choice(raw, choices)), Affinity.NONE),
        fields.take_or("shared", scalars.parse_bool, True),
        fields.take_or("mesh_name", _mesh_name, ""),
        fields.take_or("port_name", parse_port_name, ""),
    )


def _mesh_name(raw: Any) -> str:
    name = service_name(scalars.parse_text(raw))
    if name is None:
        raise RefusedError("not the name of a service in the mesh", NAME_FORM)
    return str(name)


def parse_port_name(raw: Any) -> str:
    """What a port is called in the mesh."""
    name = scalars.parse_text(raw)
    if len(name) > LONGEST_PORT or not _PORT.fullmatch(name):
        raise RefusedError("not the name of a port", PORT_FORM, in_lower_case(name, _PORT))
    return name


def dump_fields(service: Service) -> dict[str, Any]:
    """What `parse_fields` reads back; nothing of a service that is not global."""
    if not service.is_global:
        return {}
    names = {"mesh_name": service.mesh_name, "port_name": service.port_name}
    given = {key: name for key, name in names.items() if name}
    return {"global": True, "affinity": service.affinity.value, "shared": service.shared, **given}


def name_in_mesh(service: Service) -> Optional[ServiceName]:
    """What the service is called in all clusters; None where it is not global, or cannot be called anything there."""
    return service_name(service.mesh_name or service.name) if service.is_global else None


def by_mesh_name(services: Iterable[Service]) -> Mapping[ServiceName, tuple[Service, ...]]:
    """Global services by their name in the mesh."""
    found: dict[ServiceName, tuple[Service, ...]] = {}
    for service in services:
        name = name_in_mesh(service)
        if name is not None:
            found[name] = (*found.get(name, ()), service)
    return found


def port_names(service: Service) -> Mapping[tuple[Protocol, int], str]:
    """Protocol and port of the frontends -> what that port is called in the mesh.

    There, a name is that of one port. A service's own port name (or none) is that of its only protocol, and is
    followed by the protocol where there are two; further ports of a protocol add their number.
    """
    ports = sorted({(each.protocol, each.port) for each in service.frontends}, key=lambda port: (port[0].name, port[1]))
    protocols = {protocol for protocol, _ in ports}
    found: dict[tuple[Protocol, int], str] = {}
    named: set[Protocol] = set()
    for protocol, number in ports:
        parts = [service.port_name]
        parts += [protocol.name.lower()] if len(protocols) > 1 else []
        parts += [str(number)] if protocol in named else []
        found[protocol, number] = "-".join(part for part in parts if part)
        named.add(protocol)
    return found


def check(violations: Violations, items: Iterable[tuple[str, Service]], values: Mapping[str, Any]) -> None:
    """Global services are called something in the mesh, agree where they are one there, and need no direct return."""
    groups: dict[ServiceName, list[Service]] = {}
    for path, service in items:
        if not service.is_global:
            continue
        name = name_in_mesh(service)
        if name is None:
            violations.add(f"{path}.name", service.name, "cannot be the name of a global service", NAME_FORM)
            continue
        longest = max(port_names(service).values(), key=len)
        if len(longest) > LONGEST_PORT:
            message = f"its ports would be called {longest}, which is too long"
            violations.add(f"{path}.port_name", service.port_name, message, PORT_FORM)
        if any(mode_of(service.mode, each.protocol, values) is Mode.DSR for each in service.frontends):
            message = "not implemented in this version: direct server return by backends of other clusters"
            violations.add(f"{path}.global", True, message, "mode snat")
        others = groups.setdefault(name, [])
        for other in others:
            _compare(violations, path, name, service, other)
        others.append(service)


def _compare(violations: Violations, path: str, name: ServiceName, service: Service, other: Service) -> None:
    """Two services that are one in the mesh."""
    both = f"services {other.name} and {service.name} are both {name} in the mesh"
    if service.affinity is not other.affinity:
        message = f"{both}, and {other.name} has affinity {other.affinity.value}"
        violations.add(f"{path}.affinity", service.affinity.value, message, "the same for both")
    if service.shared != other.shared:
        message = f"{both}, and {other.name} has shared: {str(other.shared).lower()}"
        violations.add(f"{path}.shared", service.shared, message, "the same for both")
    mine, theirs = ({word: port for port, word in port_names(one).items()} for one in (service, other))
    same = mine.keys() & theirs.keys()
    if not same:
        return
    word = repr(min(same)) if min(same) else "without a name"
    if service.frontends[0].address.version == other.frontends[0].address.version:
        message = f"{both}, and have a port {word} each"
        violations.add(f"{path}.port_name", service.port_name, message, "a port_name of its own for each")
    elif any(mine[each] != theirs[each] for each in same):
        message = f"{both}, and their ports {word} are not the same port"
        violations.add(f"{path}.port_name", service.port_name, message, "the same ports, or a port_name for each")
