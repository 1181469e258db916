"""The datapath's tables as the kernel holds them, decoded for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datapath.compile import layouts
from datapath.state.kernel_state import KernelState
from datapath.state.model import BackendState, Frontend, IPAddress, Protocol

_INITIAL_JIFFIES = 300
"""The kernel starts its tick counter five minutes before it wraps (linux/jiffies.h)."""


@dataclass(frozen=True)
class FrontendRow:
    """An entry of the service map."""

    frontend: Frontend
    lut_id: int
    backend_count: int
    algorithm: int
    flags: int = 0

    @property
    def has_dsr(self) -> bool:
        """Whether backends answer clients themselves."""
        return bool(self.flags & layouts.SERVICE_DSR)


@dataclass(frozen=True)
class BackendRow:
    """An entry of the backend map."""

    backend_id: int
    address: IPAddress
    port: int
    protocol: Protocol
    state: BackendState
    lut_id: int

    @property
    def endpoint(self) -> str:
        """ADDR:PORT."""
        return endpoint(self.address, self.port)


def endpoint(address: IPAddress, port: int) -> str:
    """ADDR:PORT, IPv6 in brackets."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def frontends(have: KernelState) -> dict[Frontend, FrontendRow]:
    """What is in the service map."""
    rows = {}
    for raw_key, raw_value in have.entries.get(layouts.SERVICES, {}).items():
        key, value = layouts.ServiceKey.from_buffer_copy(raw_key), layouts.ServiceValue.from_buffer_copy(raw_value)
        if key.protocol in (Protocol.TCP.value, Protocol.UDP.value):
            frontend = Frontend(layouts.unpack_address(bytes(key.address)), key.port, Protocol(key.protocol))
            rows[frontend] = FrontendRow(frontend, value.lut_id, value.backend_count, value.algorithm, value.flags)
    return rows


def backends(have: KernelState) -> dict[int, BackendRow]:
    """What is in the backend map, by id; free ids are left out."""
    rows = {}
    for raw_key, raw_value in have.entries.get(layouts.BACKENDS, {}).items():
        backend_id = int.from_bytes(raw_key, sys.byteorder)
        value = layouts.BackendValue.from_buffer_copy(raw_value)
        if value.protocol in (Protocol.TCP.value, Protocol.UDP.value):
            rows[backend_id] = BackendRow(
                backend_id,
                layouts.unpack_address(bytes(value.address)),
                value.port,
                Protocol(value.protocol),
                BackendState(value.state),
                value.lut_id,
            )
    return rows


def slots(table: bytes) -> memoryview:
    """Backend ids of a LUT."""
    return memoryview(table).cast("I")


@dataclass(frozen=True)
class FlowRow:
    """A flow, as its request direction shows it."""

    protocol: Protocol
    client: str
    frontend: str
    snat: str
    backend: str
    lut_id: int
    backend_id: int
    idle: float
    """Seconds since the flow's last packet in the request direction."""


def requests(flows: Iterator[tuple[layouts.FlowKey, layouts.FlowValue]], jiffies_hz: int) -> Iterator[FlowRow]:
    """The flows' entries of the request direction; those of the reply direction mirror them."""
    now = jiffies(jiffies_hz)
    for key, value in flows:
        if key.direction == 0 and key.protocol in (Protocol.TCP.value, Protocol.UDP.value):
            yield FlowRow(
                Protocol(key.protocol),
                _endpoint(key.source, key.source_port),
                _endpoint(key.destination, key.destination_port),
                _endpoint(value.new_source, value.new_source_port),
                _endpoint(value.new_destination, value.new_destination_port),
                value.lut_id,
                value.backend_id,
                idle_seconds(now, value.last_seen, jiffies_hz),
            )


def jiffies(jiffies_hz: int) -> int:
    """The kernel's tick counter now, low 32 bits; right to about a second."""
    return int((time.clock_gettime(time.CLOCK_MONOTONIC) - _INITIAL_JIFFIES) * jiffies_hz) & 0xFFFFFFFF


def idle_seconds(now: int, stamp: int, jiffies_hz: int) -> float:
    """Seconds from `stamp` to `now`, both low 32 bits of jiffies."""
    ticks = (now - stamp) & 0xFFFFFFFF
    return 0.0 if ticks > 0x80000000 else ticks / jiffies_hz


def shares(table: bytes) -> Mapping[int, int]:
    """Backend id -> slots of a LUT."""
    counts: dict[int, int] = {}
    for backend_id in slots(table):
        counts[backend_id] = counts.get(backend_id, 0) + 1
    return counts


def _endpoint(address: layouts.Address, port: int) -> str:  # type: ignore[valid-type]
    return endpoint(layouts.unpack_address(bytes(address)), port)
