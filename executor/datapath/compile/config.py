"""The program's configuration, map sizes and sysctls out of the options."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from datapath.compile import layouts, peers
from datapath.compile.errors import Problems
from datapath.compile.hashing import seeds
from datapath.compile.layouts import Config, pack_address, unpack_address
from datapath.spec.modes import tunnels_in_ip, uses
from datapath.spec.scalars import PortRange
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import KernelState
from datapath.state.model import IPAddress, IPNetwork, Mode

TCP_ESTABLISHED_SECONDS = 8000
TCP_CLOSING_SECONDS = 10
OTHER_SECONDS = 60
"""Cilium's conntrack lifetimes (bpf-ct-timeout-regular-tcp, -tcp-fin, -any)."""
_MOST_VLANS = 4096
"""VLAN devices, and ways that their frames come in by."""
_UNUSED = 1024
"""Entries of a map that the program has but never uses."""
_DISPATCHES = {"opt": layouts.DISPATCH_OPT, "ipip": layouts.DISPATCH_IPIP, "geneve": layouts.DISPATCH_GENEVE}
_MODES = {Mode.SNAT: layouts.MODE_SNAT, Mode.DSR: layouts.MODE_DSR}
_TAIL_BITS = 32
"""Bits of an outer source that can be filled by a flow's hash: those of the address's last word."""
TCP_HISTORY_SECONDS = 600
"""How long after a change a connection that nothing is recorded about counts as older than the change.

An older one that says nothing for so long moves. A younger one that another load balancer began moves when that one is
lost within this time: it alone knew.
"""
LOCAL_PORTS = "net.ipv4.ip_local_port_range"


def map_sizes(options: Mapping[str, Any]) -> dict[str, int]:
    """Map name -> max_entries. Ids run from 1, so maps that are indexed by one have an entry more."""

    def size(key: str) -> int:
        return int(options[key] or options["bpf-lb-map-max"])

    def choices(key: str) -> int:
        # A flow takes one entry there and not two. Without direct server return nothing is entered.
        return int(options[key]) // 2 if Mode.DSR in uses(options) else _UNUSED

    return {
        layouts.SERVICES: size("bpf-lb-service-map-max"),
        layouts.ADDRESSES: size("bpf-lb-service-map-max"),
        layouts.BACKENDS: size("bpf-lb-service-backend-map-max") + 1,
        layouts.BACKEND_STATS: size("bpf-lb-service-backend-map-max") + 1,
        layouts.LUTS: size("bpf-lb-maglev-map-max") + 1,
        layouts.SERVICE_STATS: size("bpf-lb-maglev-map-max") + 1,
        layouts.HISTORIES: size("bpf-lb-maglev-map-max") + 1,
        layouts.FLOWS_TCP: int(options["bpf-ct-global-tcp-max"]),
        layouts.FLOWS_ANY: int(options["bpf-ct-global-any-max"]),
        layouts.CHOICES_TCP: choices("bpf-ct-global-tcp-max"),
        layouts.CHOICES_ANY: choices("bpf-ct-global-any-max"),
        layouts.VLANS_OUT: _MOST_VLANS,
        layouts.VLANS_IN: _MOST_VLANS,
        layouts.PEERS: peers.MOST,
    }


def read_config(have: KernelState) -> Optional[Config]:
    """The configuration of the loaded program; None where there is none, or one of another version."""
    balancer = have.load_balancer
    if balancer is None or len(balancer.config) < len(bytes(Config())):
        return None
    return Config.from_buffer_copy(balancer.config)


def source_address(
    version: int, names: Iterable[str], facts: NodeFacts, vips: frozenset[IPAddress], kept: Optional[IPAddress]
) -> Optional[IPAddress]:
    """The address that translated requests of one family carry; None where no device of `names` has one.

    `kept` is the address in use: it stays as long as it is there, because a change breaks every flow. A VIP is
    taken only where there is nothing else.
    """
    addresses = [
        interface.ip
        for name in names
        if name in facts.devices
        for interface in facts.devices[name].addresses
        if interface.version == version and not interface.ip.is_link_local and not interface.ip.is_loopback
    ]
    if kept in addresses and kept not in vips:
        return kept
    return next((each for each in addresses if each not in vips), addresses[0] if addresses else None)


@dataclass(frozen=True)
class Ways:
    """What the node's devices ask of the program."""

    transmit: bool = False
    """Whether XDP_TX will do on every device."""
    vlans: bool = False
    """Whether there are VLAN devices."""
    several_buffers: bool = False
    """Whether frames may be larger than one buffer."""


def pack_config(
    options: Mapping[str, Any],
    sources: Mapping[int, Optional[IPAddress]],
    hz: int,
    build_id: bytes,
    ways: Ways,
) -> bytes:
    """The bytes of `.rodata.config`; `sources` maps an IP version to the address of its requests."""
    hash_seeds = seeds(options["bpf-lb-maglev-hash-seed"])
    ports: PortRange = options["datapath-snat-port-range"]
    config = Config(
        snat_port_min=ports.first,
        snat_port_max=ports.last,
        maglev_table_size=options["bpf-lb-maglev-table-size"],
        hash_seed4=hash_seeds.flow4,
        hash_seed6=hash_seeds.flow6,
        tcp_established_timeout=TCP_ESTABLISHED_SECONDS * hz,
        tcp_closing_timeout=TCP_CLOSING_SECONDS * hz,
        any_timeout=OTHER_SECONDS * hz,
        enable_ipv4=options["enable-ipv4"],
        enable_ipv6=options["enable-ipv6"],
        wildcard_entries=options["bpf-lb-enable-wildcard-entries"],
        reject_without_backend=options["service-no-backend-response"] == "reject",
        history_window_tcp=TCP_HISTORY_SECONDS,
        history_window_any=OTHER_SECONDS,
        nexthop_age=hz // 4,
        forwarding_modes=sum(_MODES[mode] for mode in uses(options)),
        dsr_dispatch=_DISPATCHES[options["bpf-lb-dsr-dispatch"]] if Mode.DSR in uses(options) else 0,
        multi_buffer=ways.several_buffers,
        transmit=ways.transmit,
        vlans=ways.vlans,
        peers=bool(peers.rings(peers.members(options))),
    )
    config.build_id[:] = build_id
    for version, address in sources.items():
        if address is not None:
            getattr(config, f"snat_address{version}")[:] = pack_address(address)
        _set_encapsulation(config, options, version, address)
    return bytes(config)


def outer_network(options: Mapping[str, Any], version: int) -> Optional[IPNetwork]:
    """Where the outer sources of packets in IP tunnels come from; None where they are the node's own address."""
    text = options[f"bpf-lb-rss-ipv{version}-src-cidr"]
    return ipaddress.ip_network(text) if text and tunnels_in_ip(options) else None


def _set_encapsulation(config: Config, options: Mapping[str, Any], version: int, address: Optional[IPAddress]) -> None:
    """Outer source and the bits of it that a flow's hash fills, where packets may be wrapped."""
    if Mode.DSR not in uses(options) or options["bpf-lb-dsr-dispatch"] == "opt":
        return
    network = outer_network(options, version)
    source = address if network is None else network.network_address
    if source is not None:
        getattr(config, f"encap_source{version}")[:] = pack_address(source)
    if network is not None:
        free = min(network.max_prefixlen - network.prefixlen, _TAIL_BITS)
        setattr(config, f"encap_mask{version}", (1 << free) - 1)


def configured_source(config: Optional[Config], version: int) -> Optional[IPAddress]:
    """The source address that the loaded program uses for a family."""
    packed = bytes(getattr(config, f"snat_address{version}")) if config is not None else bytes(16)
    return unpack_address(packed) if any(packed) else None


def sysctl_name(version: int, device: str, leaf: str) -> str:
    """Name of a device's sysctl; dots in the device's name stay as they are."""
    return f"net.ipv{version}.conf.{device}.{leaf}"


def sysctls(names: Iterable[str], versions: Iterable[int], facts: NodeFacts) -> dict[str, str]:
    """What the devices need: bpf_fib_lookup answers only where forwarding is on.

    A device that forwards IPv6 ignores router advertisements unless accept_ra is 2: one that heeds them now must
    go on, or the node loses its route.
    """
    wanted = {}
    for version in versions:
        for name in names:
            wanted[sysctl_name(version, name, "forwarding")] = "1"
            heeds = sysctl_name(version, name, "accept_ra")
            if version == 6 and facts.sysctls.get(heeds, "").strip() in ("1", "2"):
                wanted[heeds] = "2"
    return wanted


def check_ports(options: Mapping[str, Any], facts: NodeFacts, problems: Problems) -> None:
    """Refuse a source port range that the node's own connections draw from."""
    ports: PortRange = options["datapath-snat-port-range"]
    local = facts.sysctls.get(LOCAL_PORTS, "").split()
    if len(local) != 2:
        return
    first, last = int(local[0]), int(local[1])
    if first <= ports.last and ports.first <= last:
        problems.refuse(
            "options.values.snat_port_range",
            str(ports),
            f"overlaps {LOCAL_PORTS} ({first} to {last}): the node's own connections to backends, health checks for"
            " example, would be taken for replies",
            f"a range outside {first} to {last}, or another {LOCAL_PORTS}",
        )
