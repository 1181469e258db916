"""Ids of tables and backends: those in the kernel are kept, new ones are drawn.

Nothing is remembered outside the kernel's maps: a frontend there names its table, a backend there its own identity.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from datapath.compile.errors import Problems
from datapath.compile.hashing import murmur3_x64_128
from datapath.compile.layouts import BACKENDS, LUTS, SERVICES, BackendValue, ServiceKey, ServiceValue, pack_address
from datapath.state.kernel_state import KernelState
from datapath.state.model import Backend, Frontend, Protocol, Service


class TableKey(NamedTuple):
    """What has a table: a service, once a protocol."""

    service: str
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.service}/{self.protocol.name}"


class BackendKey(NamedTuple):
    """A backend of one table, as the kernel stores it."""

    lut_id: int
    address: bytes
    port: int


@dataclass(frozen=True)
class Ids:
    """Every id that a state needs."""

    tables: Mapping[TableKey, int]
    backends: Mapping[BackendKey, int]

    def backend(self, lut_id: int, backend: Backend) -> int:
        """The id of a backend of that table."""
        return self.backends[BackendKey(lut_id, pack_address(backend.address), backend.port)]


def protocols(service: Service) -> tuple[Protocol, ...]:
    """The protocols of the service's frontends, in order of their numbers."""
    return tuple(sorted({frontend.protocol for frontend in service.frontends}, key=lambda each: each.value))


def pack_frontend(frontend: Frontend) -> bytes:
    """The frontend as a key of map SERVICES."""
    key = ServiceKey(port=frontend.port, protocol=frontend.protocol.value)
    key.address[:] = pack_address(frontend.address)
    return bytes(key)


def allocate(services: Sequence[Service], have: KernelState, sizes: Mapping[str, int], problems: Problems) -> Ids:
    """Ids for the tables and backends of `services`; `sizes` are the maps' sizes (their ids run from 1).

    A full map is refused: which one, its size, and the option that enlarges it.
    """
    stored = _stored_backends(have)
    tables = _table_ids(services, have, stored, sizes, problems)
    wanted = [each for service in services for each in _backend_keys(tables, service)]
    return Ids(tables, _backend_ids(wanted, stored, sizes, problems))


class _Stored(NamedTuple):
    """A backend in the kernel's map."""

    number: int
    key: BackendKey
    protocol: int


def _stored_backends(have: KernelState) -> list[_Stored]:
    found = []
    for packed_id, packed in have.entries.get(BACKENDS, {}).items():
        value = BackendValue.from_buffer_copy(packed)
        (number,) = struct.unpack("=I", packed_id)
        found.append(_Stored(number, BackendKey(value.lut_id, bytes(value.address), value.port), value.protocol))
    return found


def _table_ids(
    services: Sequence[Service],
    have: KernelState,
    stored: Sequence[_Stored],
    sizes: Mapping[str, int],
    problems: Problems,
) -> dict[TableKey, int]:
    wanted = [TableKey(service.name, protocol) for service in services for protocol in protocols(service)]
    pool = _Pool(LUTS, sizes[LUTS] - 1, "tables", problems)
    known = _frontend_tables(have)
    ids: dict[TableKey, int] = {}
    _elect(ids, _frontend_votes(services, known), pool.capacity)
    _elect(ids, _backend_votes(services, ids, stored, frozenset(known.values())), pool.capacity)
    occupied = set(have.luts) | set(known.values())
    return pool.complete([(key, str(key).encode()) for key in wanted], ids, occupied)


def _frontend_tables(have: KernelState) -> dict[bytes, int]:
    entries = have.entries.get(SERVICES, {})
    return {key: int(ServiceValue.from_buffer_copy(value).lut_id) for key, value in entries.items()}


def _frontend_votes(services: Sequence[Service], known: Mapping[bytes, int]) -> Counter[tuple[TableKey, int]]:
    """The table that most of a service's frontends point at is its own, so also after a change of its name."""
    return Counter(
        (TableKey(service.name, frontend.protocol), known[key])
        for service in services
        for frontend in service.frontends
        for key in (pack_frontend(frontend),)
        if key in known
    )


def _backend_votes(
    services: Sequence[Service], ids: Mapping[TableKey, int], stored: Sequence[_Stored], pointed_at: frozenset[int]
) -> Counter[tuple[TableKey, int]]:
    """Where a service's frontends are lost: the table of its backends, among those that no frontend points at."""
    tables: dict[tuple[bytes, int, int], list[int]] = {}
    for each in stored:
        if each.key.lut_id not in pointed_at:
            tables.setdefault((each.key.address, each.key.port, each.protocol), []).append(each.key.lut_id)
    if not tables:
        return Counter()
    return Counter(
        (key, lut_id)
        for service in services
        for protocol in protocols(service)
        for key in (TableKey(service.name, protocol),)
        if key not in ids
        for backend in service.backends
        for lut_id in tables.get((pack_address(backend.address), backend.port, protocol.value), ())
    )


def _elect(ids: dict[TableKey, int], votes: Counter[tuple[TableKey, int]], capacity: int) -> None:
    """Give tables to those who have the most votes for them; a smaller map has no place for ids over `capacity`."""
    taken = set(ids.values())
    for (key, lut_id), _ in sorted(votes.items(), key=lambda vote: (-vote[1], str(vote[0][0]), vote[0][1])):
        if key not in ids and lut_id not in taken and 1 <= lut_id <= capacity:
            ids[key] = lut_id
            taken.add(lut_id)


def reassign(ids: Ids, old: Service, new: Service, size: int, problems: Problems) -> Ids:
    """`ids` after a change of one service's backends; the names and frontends of `old` and `new` are the same."""
    wanted = dict(_backend_keys(ids.tables, new))
    gone = [key for key, _ in _backend_keys(ids.tables, old) if key not in wanted]
    if not gone and all(key in ids.backends for key in wanted):
        return ids
    left = dict(ids.backends)
    freed = {left.pop(key) for key in gone}
    pool = _Pool(BACKENDS, size - 1, "backends", problems)
    return Ids(ids.tables, pool.complete(_named(wanted.items()), left, freed))


def backend_entries(ids: Ids, service: Service) -> list[bytes]:
    """The keys of map BACKENDS that a service's backends have."""
    return [struct.pack("=I", ids.backends[key]) for key, _ in _backend_keys(ids.tables, service)]


def _backend_keys(tables: Mapping[TableKey, int], service: Service) -> Iterator[tuple[BackendKey, Protocol]]:
    for protocol in protocols(service):
        lut_id = tables.get(TableKey(service.name, protocol), 0)
        for backend in service.backends:
            yield BackendKey(lut_id, pack_address(backend.address), backend.port), protocol


def _named(keys: Iterable[tuple[BackendKey, Protocol]]) -> list[tuple[BackendKey, bytes]]:
    """Each with what its id is drawn by."""
    return [(key, struct.pack(">I16sHB", *key, protocol.value)) for key, protocol in keys]


def _backend_ids(
    wanted: Sequence[tuple[BackendKey, Protocol]],
    stored: Sequence[_Stored],
    sizes: Mapping[str, int],
    problems: Problems,
) -> dict[BackendKey, int]:
    pool = _Pool(BACKENDS, sizes[BACKENDS] - 1, "backends", problems)
    known: dict[tuple[BackendKey, int], int] = {}
    for each in stored:
        known.setdefault((each.key, each.protocol), each.number)
    ids = {
        key: known[key, protocol.value]
        for key, protocol in wanted
        if 1 <= known.get((key, protocol.value), 0) <= pool.capacity
    }
    return pool.complete(_named(wanted), ids, set(known.values()))


_SIZED_BY = {
    SERVICES: "bpf-lb-service-map-max",
    BACKENDS: "bpf-lb-service-backend-map-max",
    LUTS: "bpf-lb-maglev-map-max",
}
_LEAST_WINDOW = 4096
_Key = TypeVar("_Key", TableKey, BackendKey)


def full_map(problems: Problems, map_name: str, size: int, wanted: int, things: str) -> None:
    """Refuse what does not fit: which map, its size, the option that enlarges it."""
    problems.refuse(
        "services",
        wanted,
        f"map {map_name} is full: it holds {size} {things}, {wanted} are wanted",
        f"at most {size}; option {_SIZED_BY[map_name]} (or bpf-lb-map-max where that is 0) enlarges it",
    )


class _Pool:
    """Ids 1 to `capacity` of one map."""

    def __init__(self, map_name: str, capacity: int, things: str, problems: Problems) -> None:
        self.map_name = map_name
        self.capacity = capacity
        self.things = things
        self.problems = problems

    def complete(
        self, wanted: Sequence[tuple[_Key, bytes]], ids: dict[_Key, int], occupied: Iterable[int]
    ) -> dict[_Key, int]:
        """`ids` with an id for everything in `wanted`, each with the name that its id is drawn by.

        An id is drawn by hashing the name, so that one that becomes free is rarely given to somebody else while
        flows still carry it. Ids in `occupied` belong to somebody now and are taken last.
        """
        total = len(ids) + sum(key not in ids for key, _ in wanted)
        if total > self.capacity:
            full_map(self.problems, self.map_name, self.capacity, total, self.things)
            return ids
        claimed = set(ids.values())
        avoid = claimed | set(occupied)
        # not from all ids: low ones survive a smaller map
        window = min(self.capacity, max(_LEAST_WINDOW, 4 * total))
        for key, name in wanted:
            if key not in ids:
                if len(avoid) >= self.capacity:
                    avoid = claimed
                ids[key] = chosen = self._draw(name, window, avoid)
                claimed.add(chosen)
                avoid.add(chosen)
        return ids

    def _draw(self, name: bytes, window: int, avoid: set[int]) -> int:
        place = murmur3_x64_128(name, 0)[0] % window
        while place + 1 in avoid:
            place = (place + 1) % self.capacity
        return place + 1
