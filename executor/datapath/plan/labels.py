"""Names for what the kernel knows by number."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType

from datapath.compile.layouts import (
    BACKENDS,
    RATE_EGRESS,
    SERVICE_DSR,
    SERVICES,
    BackendValue,
    Rate,
    RateKey,
    ServiceKey,
    ServiceValue,
    Vlan,
    unpack_address,
)
from datapath.spec.scalars import render_bit_rate
from datapath.state.kernel_state import KernelState
from datapath.state.model import Algorithm, Backend, BackendState, Frontend, Protocol

_PROVIDER = 0x88A8
"""802.1ad"""


def frontend(key: bytes) -> str:
    """`192.0.2.10:80/TCP` for a key of map SERVICES."""
    stored = ServiceKey.from_buffer_copy(key)
    try:
        return str(Frontend(unpack_address(bytes(stored.address)), stored.port, Protocol(stored.protocol)))
    except ValueError:
        return f"{unpack_address(bytes(stored.address))} port {stored.port} protocol {stored.protocol}"


def device_index(packed: bytes) -> str:
    """A network device, which maps know by its index."""
    return f"device {struct.unpack('=I', packed)[0]}"


def vlan(packed: bytes) -> str:
    """`device 3, VLAN 100 (802.1ad), VLAN 7` for a way by which frames of a VLAN device come and go."""
    stored = Vlan.from_buffer_copy(packed)
    tags = [f"VLAN {tag.control}{' (802.1ad)' * (tag.protocol == _PROVIDER)}" for tag in stored.tags if tag.protocol]
    return ", ".join((f"device {stored.device}", *tags))


def rate(packed: bytes) -> str:
    """`50 Mbit/s, priority 7` for a value of map BANDWIDTH_RATES."""
    stored = Rate.from_buffer_copy(packed)
    parts = [render_bit_rate(8 * stored.bytes_per_second) if stored.bytes_per_second else "unlimited"]
    parts += [f"horizon {stored.horizon / 1e9:.3g} s"] if stored.horizon else []
    parts += [f"burst {stored.burst} bytes"] if stored.burst else []
    parts += [f"priority {stored.priority}"] if stored.priority else []
    return ", ".join(parts)


def _word(enum: type[Algorithm] | type[BackendState], value: int) -> str:
    try:
        return str(enum(value).name).lower()
    except ValueError:
        return f"unknown ({value})"


class Labels:
    """Names of tables and backends in both states of a plan."""

    def __init__(
        self,
        want: KernelState,
        have: KernelState,
        names: Mapping[int, str],
        endpoints: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self._want = want
        self._have = have
        self._names = names
        self._endpoints = endpoints

    def endpoint(self, packed: bytes) -> str:
        """`db` for a value of map BANDWIDTH_ENDPOINTS."""
        number = int(struct.unpack("=I", packed)[0])
        return self._endpoints.get(number, f"endpoint {number}")

    def rate_key(self, packed: bytes) -> str:
        """`db egress` for a key of map BANDWIDTH_RATES."""
        key = RateKey.from_buffer_copy(packed)
        direction = "egress" if key.direction == RATE_EGRESS else "ingress"
        return f"{self.endpoint(struct.pack('=I', key.endpoint))} {direction}"

    def table(self, lut_id: int) -> str:
        """`web/TCP`; the first frontend where the service is not wanted any more, so that its name is unknown."""
        return self._names.get(lut_id) or self._old_names.get(lut_id) or f"table {lut_id}"

    @cached_property
    def _old_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for key, value in sorted(self._have.entries.get(SERVICES, {}).items()):
            names.setdefault(ServiceValue.from_buffer_copy(value).lut_id, frontend(key))
        return names

    def backend(self, value: bytes) -> str:
        """`10.0.1.11:8080` for a value of map BACKENDS."""
        stored = BackendValue.from_buffer_copy(value)
        return str(Backend(unpack_address(bytes(stored.address)), stored.port))

    def backend_key(self, value: bytes) -> str:
        """`web/TCP 10.0.1.11:8080` for a value of map BACKENDS."""
        return f"{self.table(BackendValue.from_buffer_copy(value).lut_id)} {self.backend(value)}"

    def backend_state(self, value: bytes) -> str:
        """`active` and so on for a value of map BACKENDS."""
        return _word(BackendState, BackendValue.from_buffer_copy(value).state)

    def service(self, value: bytes) -> str:
        """`web/TCP, maglev, DSR, 3 backends` for a value of map SERVICES."""
        stored = ServiceValue.from_buffer_copy(value)
        count = f"{stored.backend_count} backend{'' if stored.backend_count == 1 else 's'}"
        mode = ", DSR" if stored.flags & SERVICE_DSR else ""
        return f"{self.table(stored.lut_id)}, {_word(Algorithm, stored.algorithm)}{mode}, {count}"

    def backend_id(self, state: KernelState, backend_id: int) -> str:
        """`10.0.1.11:8080` for an id as `state` has it."""
        value = state.entries.get(BACKENDS, {}).get(struct.pack("=I", backend_id))
        return self.backend(value) if value is not None else f"backend {backend_id}"
