"""One service to its map entries and tables."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datapath.compile import maglev
from datapath.compile.ids import Ids, TableKey, pack_frontend, protocols
from datapath.compile.layouts import ADDRESS_VIP, SERVICE_DSR, BackendValue, ServiceValue, pack_address
from datapath.spec.modes import mode_of
from datapath.state.merged import EffectiveBackend, EffectiveService
from datapath.state.model import Algorithm, Mode, Protocol, Service


@dataclass(frozen=True)
class TableSettings:
    """What all tables have in common."""

    size: int
    seed: int
    algorithm: Algorithm
    """Of services that do not choose."""
    options: Mapping[str, Any]
    """Effective ones, for forwarding modes."""

    def same_tables(self, other: TableSettings) -> bool:
        """Whether the same members give the same table."""
        return (self.size, self.seed) == (other.size, other.seed)

    def returned(self, service: Service, protocol: Protocol) -> bool:
        """Whether a service's backends answer its clients themselves."""
        return mode_of(service.mode, protocol, self.options) is Mode.DSR


@dataclass(frozen=True)
class Table:
    """A table and what it was made of; making it again from the same is not needed."""

    members: tuple[maglev.Member, ...]
    slots: bytes


@dataclass
class Parts:
    """Map entries, by map, and tables."""

    services: dict[bytes, bytes] = field(default_factory=dict)
    backends: dict[bytes, bytes] = field(default_factory=dict)
    addresses: dict[bytes, bytes] = field(default_factory=dict)
    tables: dict[int, Table] = field(default_factory=dict)


def compile_parts(
    parts: Parts, effective: EffectiveService, ids: Ids, settings: TableSettings, known: Mapping[int, Table]
) -> None:
    """Add the service to `parts`; tables in `known` that are made of the same are used again.

    A service without a usable backend has no table: the datapath looks at its count first. With direct server return
    it has one of empty slots, whose history tells where its established flows are.
    """
    service = effective.service
    algorithm = service.algorithm or settings.algorithm
    for protocol in protocols(service):
        lut_id = ids.tables[TableKey(service.name, protocol)]
        members = []
        for each in effective.backends:
            backend_id = ids.backend(lut_id, each.backend)
            parts.backends[struct.pack("=I", backend_id)] = _backend_value(each, protocol, lut_id)
            if each.in_table:
                text = maglev.hash_string(each.backend, protocol)
                members.append(maglev.Member(text, each.backend.weight, backend_id))
        returned = settings.returned(service, protocol)
        if members or returned:
            parts.tables[lut_id] = _table(tuple(members), settings, known.get(lut_id))
        flags = SERVICE_DSR if returned else 0
        value = bytes(ServiceValue(lut_id, len(members), algorithm.value, flags))
        for frontend in service.frontends:
            if frontend.protocol is protocol:
                parts.services[pack_frontend(frontend)] = value
                parts.addresses[pack_address(frontend.address)] = struct.pack("=I", ADDRESS_VIP)


def _table(members: tuple[maglev.Member, ...], settings: TableSettings, known: Table | None) -> Table:
    if known is not None and known.members == members:
        return known
    if not members:
        return Table(members, bytes(4 * settings.size))
    return Table(members, maglev.table(members, settings.size, settings.seed).tobytes())


def _backend_value(each: EffectiveBackend, protocol: Protocol, lut_id: int) -> bytes:
    value = BackendValue(port=each.backend.port, protocol=protocol.value, state=each.state.value, lut_id=lut_id)
    value.address[:] = pack_address(each.backend.address)
    return bytes(value)
