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
"""ARRAY_OF_MAPS u32 LUT id (from 1) -> ARRAY of one value: u32[table size] of backend ids, then the second (since boot)
in which it was written; sized by `bpf-lb-maglev-map-max`."""
HISTORIES = "histories_v1"
"""As LUTS: previous owners of slots that are marked `SLOT_MOVED` there; only services with direct server return have
one."""
ADDRESSES = "addresses_v1"
"""HASH of 16-byte address -> u32 flags (`ADDRESS_VIP`); sized as SERVICES."""
FLOWS_TCP = "flows_tcp_v1"
FLOWS_ANY = "flows_any_v1"
"""LRU_HASH FlowKey -> FlowValue; sized by `bpf-ct-global-tcp-max` and `bpf-ct-global-any-max`."""
CHOICES_TCP = "choices_tcp_v1"
CHOICES_ANY = "choices_any_v1"
"""LRU_HASH FlowKey -> ChoiceValue; sized as the maps of flows."""
NEXTHOPS = "nexthops_v1"
LOOKUPS = "lookups_v1"
"""Answers of the routing table, and of SERVICES and ADDRESSES: of a fixed size, the datapath's own."""
VLANS_OUT = "vlans_out_v1"
"""HASH u32 index of a VLAN device -> Vlan: how its frames leave."""
VLANS_IN = "vlans_in_v1"
"""HASH Vlan -> u32 index of the VLAN device: how frames come in that the load balancer serves."""
PEERS = "peers_v1"
"""HASH of 16-byte address -> 16-byte address: a load balancer, and the next one in the ring that errors go around."""
CAPTURE_EVENTS = "capture_events"
"""PERF_EVENT_ARRAY: copies of frames behind a CaptureEvent, from an instance of the program that makes them."""
GENERATION = "generation_v1"
"""ARRAY of one u32 that grows with every change of SERVICES and ADDRESSES, which voids LOOKUPS."""
OUTCOMES = "outcomes_v1"
SERVICE_STATS = "service_stats_v1"
BACKEND_STATS = "backend_stats_v1"
"""PERCPU_ARRAY -> Counter; keyed by outcome, LUT id, backend id."""

ADDRESS_VIP = 1
SLOT_MOVED = 0x80000000
"""Bit of a slot: the service's history has another owner for it."""
SERVICE_DSR = 1
"""Bit of `ServiceValue.flags`: backends answer clients themselves."""
MODE_SNAT = 1
MODE_DSR = 2
"""Bits of `Config.forwarding_modes`."""
DISPATCH_OPT = 1
DISPATCH_IPIP = 2
DISPATCH_GENEVE = 3
"""Values of `Config.dsr_dispatch`; 0 is none."""

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


class ChoiceValue(Layout):
    """Who has a flow with direct server return whose slot changed owner."""

    C_NAME = "choice"
    _fields_ = (
        ("backend_id", ctypes.c_uint32),
        ("lut_id", ctypes.c_uint32),
        ("last_seen", ctypes.c_uint32),
        ("closing", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
    )


class VlanTag(Layout):
    """A tag as it stands in a frame (IEEE 802.1Q, 9.4)."""

    C_NAME = "vlan_tag"
    _fields_ = (
        ("protocol", ctypes.c_uint16.__ctype_be__),
        ("control", ctypes.c_uint16.__ctype_be__),
    )


VLAN_TAGS = 2
"""Tags that are looked behind."""


class Vlan(Layout):
    """Device and tags that frames of a VLAN device have, outermost first; all-zero tags are none."""

    C_NAME = "vlan"
    _fields_ = (
        ("device", ctypes.c_uint32),
        ("tags", VlanTag * VLAN_TAGS),
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
        ("history_window_tcp", ctypes.c_uint32),
        ("history_window_any", ctypes.c_uint32),
        ("encap_mask4", ctypes.c_uint32.__ctype_be__),
        ("encap_mask6", ctypes.c_uint32.__ctype_be__),
        ("encap_source4", Address),
        ("encap_source6", Address),
        ("nexthop_age", ctypes.c_uint32),
        ("forwarding_modes", ctypes.c_uint8),
        ("dsr_dispatch", ctypes.c_uint8),
        ("multi_buffer", ctypes.c_uint8),
        ("transmit", ctypes.c_uint8),
        ("vlans", ctypes.c_uint8),
        ("peers", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 2),
    )


class Capture(Layout):
    """What `datapath capture` asks for: `const volatile struct capture` in section `.rodata.capture`; 0 is any."""

    C_NAME = "capture"
    _fields_ = (
        ("address", Address),
        ("mask", Address),
        ("enabled", ctypes.c_uint32),
        ("snaplen", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("protocol", ctypes.c_uint8),
        ("pad", ctypes.c_uint8),
    )


class CaptureEvent(Layout):
    """What stands in front of a frame's bytes in `capture_events`."""

    C_NAME = "capture_event"
    _fields_ = (
        ("time", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("captured", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("sent_by", ctypes.c_uint32),
        ("outcome", ctypes.c_uint16),
        ("phase", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 5),
    )


LAYOUTS: tuple[type[Layout], ...] = (
    ServiceKey,
    ServiceValue,
    BackendValue,
    FlowKey,
    FlowValue,
    ChoiceValue,
    VlanTag,
    Vlan,
    Counter,
    Config,
    Capture,
)


# --- programs of the nodes that backends are on (tc_node.bpf.c) ---

NODE_OPENINGS = "dsr_openings_v1"
NODE_REPLIES = "dsr_replies_v1"
"""LRU_HASH FlowKey -> FrontendValue: what a flow was addressed to, entered by SYNs and UDP; established TCP."""
NODE_FRAGMENTS = "dsr_fragments_v1"
"""Replies that leave in fragments, of a fixed size: the datapath's own."""
NODE_OUTCOMES = "node_outcomes_v1"
"""PERCPU_ARRAY -> Counter; keyed by outcome."""


class FrontendValue(Layout):
    """What a flow with direct server return was addressed to."""

    C_NAME = "dsr_frontend"
    _fields_ = (
        ("address", Address),
        ("port", ctypes.c_uint16.__ctype_be__),
        ("pad", ctypes.c_uint16),
    )


class NodeConfig(Layout):
    """Those programs' configuration: `const volatile struct node_config` in section `.rodata.config`."""

    C_NAME = "node_config"
    _fields_ = (
        ("build_id", ctypes.c_uint8 * 16),
        ("enable_ipv4", ctypes.c_uint8),
        ("enable_ipv6", ctypes.c_uint8),
        ("enable_opt", ctypes.c_uint8),
        ("enable_geneve", ctypes.c_uint8),
        ("enable_ipip", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
    )


NODE_LAYOUTS: tuple[type[Layout], ...] = (FrontendValue, NodeConfig)


# --- programs of the bandwidth manager (tc_bandwidth.bpf.c) ---

BANDWIDTH_ENDPOINTS = "endpoints_v1"
"""HASH u32 index of the endpoint's device -> u32 number."""
BANDWIDTH_NATIVES = "natives_v1"
"""HASH u32 index of a device that leads out of the node -> u32 1; empty where the stack routes."""
BANDWIDTH_RATES = "rates_v1"
"""HASH RateKey -> Rate."""
BANDWIDTH_DECIDED = (BANDWIDTH_NATIVES, BANDWIDTH_RATES, BANDWIDTH_ENDPOINTS)
"""Those whose contents desired state decides, in the order in which they come to matter: a device that is no endpoint's
has neither rate nor route."""
BANDWIDTH_DEPARTURES = "departures_v1"
"""ARRAY u32 `2 * (number - ENDPOINT_FIRST) + direction` -> Departure."""
BANDWIDTH_STATS = "bandwidth_stats_v1"
"""PERCPU_HASH RateKey -> Traffic; the programs make the entries."""
BANDWIDTH_OUTCOMES = "bandwidth_outcomes_v1"
"""PERCPU_ARRAY -> Counter; keyed by outcome."""

ENDPOINT_FIRST = 4096
"""Least number of an endpoint: below, `skb->queue_mapping` may be a receive queue's."""
ENDPOINT_HOST = ENDPOINT_FIRST
ENDPOINT_LAST = 65534
RATE_EGRESS = 0
RATE_INGRESS = 1
"""Values of `RateKey.direction`, seen from the endpoint."""


class RateKey(Layout):
    """An endpoint in one direction."""

    C_NAME = "rate_key"
    _fields_ = (
        ("endpoint", ctypes.c_uint32),
        ("direction", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
    )


class Rate(Layout):
    """What is configured for it; a rate of 0 is none."""

    C_NAME = "rate"
    _fields_ = (
        ("bytes_per_second", ctypes.c_uint64),
        ("horizon", ctypes.c_uint64),
        ("burst", ctypes.c_uint64),
        ("priority", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class Departure(Layout):
    """When its last packet left, or leaves."""

    C_NAME = "departure"
    _fields_ = (
        ("lock", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("last", ctypes.c_uint64),
    )


class Traffic(Layout):
    """Per CPU: what became of its packets."""

    C_NAME = "traffic"
    _fields_ = (
        ("passed_packets", ctypes.c_uint64),
        ("passed_bytes", ctypes.c_uint64),
        ("dropped_packets", ctypes.c_uint64),
        ("dropped_bytes", ctypes.c_uint64),
    )


class BandwidthConfig(Layout):
    """Those programs' configuration: `const volatile struct bandwidth_config` in section `.rodata.config`."""

    C_NAME = "bandwidth_config"
    _fields_ = (
        ("build_id", ctypes.c_uint8 * 16),
        ("horizon", ctypes.c_uint64),
        ("route", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 7),
    )


BANDWIDTH_LAYOUTS: tuple[type[Layout], ...] = (RateKey, Rate, Departure, Traffic, BandwidthConfig)


# --- the program by which the host's own sockets have BBR (sock_bbr.bpf.c) ---


class BbrConfig(Layout):
    """Its configuration: `const volatile struct bbr_config` in section `.rodata.config`."""

    C_NAME = "bbr_config"
    _fields_ = (
        ("build_id", ctypes.c_uint8 * 16),
        ("netns_cookie", ctypes.c_uint64),
        ("congestion", ctypes.c_uint8 * 16),
    )
