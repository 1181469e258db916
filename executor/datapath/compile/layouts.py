"""Layouts of the datapath's maps and of its configuration, byte for byte as `bpf/maps/layout.h` declares them.

A test compares names, offsets and sizes of both sides through BTF. Integers are in host order unless a field
says big-endian. Addresses are 16 bytes; IPv4 is carried v4-mapped (RFC 4291, 2.5.5.2), so that one code path and
one map serve both families.
"""

from __future__ import annotations

import ctypes
import ipaddress
from typing import ClassVar

from datapath.state.model import IPAddress

SERVICES = "services_v1"
"""HASH ServiceKey -> ServiceValue; sized by `bpf-lb-service-map-max`."""
BACKENDS = "backends_v1"
"""ARRAY u32 backend id -> BackendValue; sized by `bpf-lb-service-backend-map-max`."""
LUTS = "luts_v1"
"""ARRAY_OF_MAPS u32 LUT id (from 1) -> ARRAY of one value, u32[table size] of backend ids; sized by
`bpf-lb-maglev-map-max`."""
ADDRESSES = "addresses_v1"
"""HASH of 16-byte address -> u32 flags (`ADDRESS_VIP`); sized as SERVICES."""
FLOWS_TCP = "flows_tcp_v1"
FLOWS_ANY = "flows_any_v1"
"""LRU_HASH FlowKey -> FlowValue; sized by `bpf-ct-global-tcp-max` and `bpf-ct-global-any-max`."""
OUTCOMES = "outcomes_v1"
SERVICE_STATS = "service_stats_v1"
BACKEND_STATS = "backend_stats_v1"
"""PERCPU_ARRAY -> Counter; keyed by outcome, LUT id, backend id."""

ADDRESS_VIP = 1

_V4_MAPPED = b"\0" * 10 + b"\xff\xff"

Address = ctypes.c_uint8 * 16


def pack_address(address: IPAddress) -> bytes:
    """The 16 bytes of `address`, IPv4 v4-mapped."""
    return address.packed if address.version == 6 else _V4_MAPPED + address.packed


def unpack_address(packed: bytes) -> IPAddress:
    """The inverse of `pack_address`."""
    if packed[:12] == _V4_MAPPED:
        return ipaddress.IPv4Address(packed[12:])
    return ipaddress.IPv6Address(packed)


class Layout(ctypes.Structure):
    """Base of all layouts; `C_NAME` is the C struct's name."""

    C_NAME: ClassVar[str]


class ServiceKey(Layout):
    """A frontend."""

    C_NAME = "service_key"
    _fields_ = (
        ("address", Address),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("pad", ctypes.c_uint8),
    )


class ServiceValue(Layout):
    """What a frontend leads to."""

    C_NAME = "service"
    _fields_ = (
        ("lut_id", ctypes.c_uint32),
        ("backend_count", ctypes.c_uint16),
        ("algorithm", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
    )


class BackendValue(Layout):
    """Key: u32 backend id, from 1; an all-zero value is a free id.

    Ids belong to one service and protocol (`lut_id`), so that state, health and counters of a backend that
    several services use never mix.
    """

    C_NAME = "backend"
    _fields_ = (
        ("address", Address),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("state", ctypes.c_uint8),
        ("lut_id", ctypes.c_uint32),
    )


class FlowKey(Layout):
    """A flow as a packet shows it on arrival: from the client to the VIP, or from the backend to our SNAT address."""

    C_NAME = "flow_key"
    _fields_ = (
        ("source", Address),
        ("destination", Address),
        ("source_port", ctypes.c_uint16.__ctype_be__),
        ("destination_port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("direction", ctypes.c_uint8),
        ("pad", ctypes.c_uint16),
    )


class FlowValue(Layout):
    """What the packet's addresses become; the same structure in both directions."""

    C_NAME = "flow"
    _fields_ = (
        ("new_source", Address),
        ("new_destination", Address),
        ("new_source_port", ctypes.c_uint16.__ctype_be__),
        ("new_destination_port", ctypes.c_uint16.__ctype_be__),
        ("backend_id", ctypes.c_uint32),
        ("lut_id", ctypes.c_uint32),
        ("last_seen", ctypes.c_uint32),
        ("tcp_flags_seen", ctypes.c_uint8),
        ("state", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 2),
    )


class Counter(Layout):
    """Per CPU: value of maps `outcomes`, `service_stats` (key: LUT id) and `backend_stats` (key: backend id)."""

    C_NAME = "counter"
    _fields_ = (
        ("packets", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
    )


class Config(Layout):
    """The program's configuration: `const volatile struct config` in section `.rodata.config`."""

    C_NAME = "config"
    _fields_ = (
        ("build_id", ctypes.c_uint8 * 16),
        ("snat_address4", Address),
        ("snat_address6", Address),
        ("snat_port_min", ctypes.c_uint16),
        ("snat_port_max", ctypes.c_uint16),
        ("maglev_table_size", ctypes.c_uint32),
        ("hash_seed4", ctypes.c_uint32),
        ("hash_seed6", ctypes.c_uint32),
        ("tcp_established_timeout", ctypes.c_uint32),
        ("tcp_closing_timeout", ctypes.c_uint32),
        ("any_timeout", ctypes.c_uint32),
        ("enable_ipv4", ctypes.c_uint8),
        ("enable_ipv6", ctypes.c_uint8),
        ("wildcard_entries", ctypes.c_uint8),
        ("reject_without_backend", ctypes.c_uint8),
    )


LAYOUTS: tuple[type[Layout], ...] = (
    ServiceKey,
    ServiceValue,
    BackendValue,
    FlowKey,
    FlowValue,
    Counter,
    Config,
)
