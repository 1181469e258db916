"""The option registry: every option once.

The parser, the argument specifications, the sample inventory and the option reference all come from these rows.
A later version adds rows. What Cilium has and this version has not is in `datapath.spec.later`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Optional

from datapath.spec import checks, clustermesh, modes
from datapath.spec.errors import RefusedError, nearest_name
from datapath.spec.later import LATER
from datapath.spec.option import Group, Kind, Option
from datapath.spec.scalars import PortRange
from datapath.state.model import Options


def _size(key: str, what: str, extra: str = "", default: int = 0) -> Option:
    """A row of the map sizes that follow `bpf-lb-map-max` unless they are set."""
    param = key[len("bpf-lb-") :].replace("-", "_")
    return Option(
        key=key,
        param=param,
        variable=f"datapath_lb_{param}",
        kind=Kind.INT,
        default=default,
        group=Group.MAPS,
        maximum=checks.MAP_LIMIT,
        summary=f"How many {what} fit; 0 follows C(bpf-lb-map-max).",
        effect=f"Sizes the map of {what}. A change stages a new map beside the old one and swaps both under traffic."
        + extra,
        example=131072,
    )


def _flow_size(key: str, param: str, what: str, default: int) -> Option:
    return Option(
        key=key,
        param=param,
        variable=f"datapath_{param}",
        kind=Kind.INT,
        default=default,
        group=Group.MAPS,
        minimum=1024,
        maximum=checks.MAP_LIMIT,
        summary=f"How many {what} flow entries are kept; every flow takes two, one a direction.",
        effect="Sizes the flow map. When it is full the least recently used flows are forgotten, so size it for the"
        " peak. Entries move to the new map when it is resized. The map of flows with direct server return whose slot"
        " changed owner has half this size: those take one entry.",
        example=2 * default,
    )


REGISTRY: tuple[Option, ...] = (
    Option(
        key="bpf-lb-mode",
        param="mode",
        variable="cilium_loadbalancer_mode",
        kind=Kind.TEXT,
        default="snat",
        group=Group.LOAD_BALANCER,
        choices=modes.MODES,
        summary="How requests reach the backends and replies the clients.",
        effect="C(snat) rewrites the source to the load balancer's own address, so that backends need no set-up and"
        " replies return through the load balancer. C(dsr) leaves the source as it is and tells the backend which"
        " service was meant (C(bpf-lb-dsr-dispatch)); the backend answers the client itself, which needs"
        " C(datapath-dsr-backend) or Cilium there. C(hybrid) is C(dsr) for TCP and C(snat) for UDP. A change ends the"
        " established flows of the services concerned.",
        example="dsr",
    ),
    Option(
        key="bpf-lb-mode-annotation",
        param="mode_annotation",
        variable="datapath_lb_mode_annotation",
        kind=Kind.BOOL,
        default=False,
        group=Group.LOAD_BALANCER,
        summary="Whether a service may choose between C(snat) and C(dsr) by itself (its C(mode)).",
        effect="When true, the program is loaded with both, C(bpf-lb-mode) is for services that do not choose, and it"
        " must not be C(hybrid).",
        example=True,
    ),
    Option(
        key="bpf-lb-dsr-dispatch",
        param="dsr_dispatch",
        variable="datapath_lb_dsr_dispatch",
        kind=Kind.TEXT,
        default="opt",
        group=Group.LOAD_BALANCER,
        choices=modes.DISPATCHES,
        summary="How a packet tells the backend which service it was sent to, with direct server return.",
        effect="C(opt) adds an IPv4 option or IPv6 destination option to TCP SYNs and to every UDP packet, which"
        " routers on the way must let through. C(ipip) wraps every packet into IP, to backends of either family, which"
        " listen on the frontend's port. C(geneve) wraps every packet into Geneve (UDP port 6081). Tunnels need"
        " room in the MTU towards the backends. Without direct server return it has no effect.",
        example="geneve",
    ),
    Option(
        key="bpf-lb-rss-ipv4-src-cidr",
        param="rss_ipv4_src_cidr",
        variable="datapath_lb_rss_ipv4_src_cidr",
        kind=Kind.TEXT,
        default="",
        group=Group.LOAD_BALANCER,
        values=checks.cidr_form(4),
        check=checks.cidr(4),
        summary="Network whose addresses are the outer IPv4 sources of packets in IP tunnels.",
        effect="The flow's hash fills the bits behind the prefix, so that a backend's network card spreads flows over"
        " its queues. Empty means the load balancer's own address for all. Only with C(bpf-lb-dsr-dispatch: ipip); for"
        " example C(10.200.0.0/16).",
    ),
    Option(
        key="bpf-lb-rss-ipv6-src-cidr",
        param="rss_ipv6_src_cidr",
        variable="datapath_lb_rss_ipv6_src_cidr",
        kind=Kind.TEXT,
        default="",
        group=Group.LOAD_BALANCER,
        values=checks.cidr_form(6),
        check=checks.cidr(6),
        summary="Network whose addresses are the outer IPv6 sources of packets in IP tunnels.",
        effect="As C(bpf-lb-rss-ipv4-src-cidr); of a prefix shorter than 96 bits the hash fills the last 32 bits. For"
        " example C(2001:db8:200::/96).",
    ),
    Option(
        key="bpf-lb-algorithm",
        param="algorithm",
        variable="datapath_lb_algorithm",
        kind=Kind.TEXT,
        default="random",
        group=Group.LOAD_BALANCER,
        choices=("random", "maglev"),
        summary="How a new flow chooses its backend, unless its service says otherwise.",
        effect="C(random) draws a slot of the service's table; C(maglev) hashes the flow to a slot, so that every load"
        " balancer with the same seed, table size and backends makes the same choice. Both follow the weights.",
        example="maglev",
    ),
    Option(
        key="bpf-lb-maglev-table-size",
        param="maglev_table_size",
        variable="datapath_lb_maglev_table_size",
        kind=Kind.INT,
        default=16381,
        group=Group.LOAD_BALANCER,
        choices=checks.TABLE_SIZES,
        minimum=-(1 << 63),
        maximum=(1 << 63) - 1,
        check=checks.table_size,
        summary="Slots in every service's table.",
        effect="Take at least 100 times the backends of the largest service for shares within 1 % of the weights. A"
        " table takes four bytes a slot. A change moves most new flows to other backends.",
        example=65521,
    ),
    Option(
        key="bpf-lb-maglev-hash-seed",
        param="maglev_hash_seed",
        variable="datapath_lb_maglev_hash_seed",
        kind=Kind.TEXT,
        default=checks.DEFAULT_SEED,
        group=Group.LOAD_BALANCER,
        values=checks.SEED_FORM,
        check=checks.seed,
        summary="Seed of the tables and of the flow hash: 12 bytes in base64.",
        effect="All load balancers of one set of VIPs need the same seed. A private seed keeps outsiders from aiming"
        " flows at one backend. A change moves most new flows to other backends.",
    ),
    Option(
        key="bpf-lb-acceleration",
        param="acceleration",
        variable="datapath_lb_acceleration",
        kind=Kind.TEXT,
        default="native",
        group=Group.DEVICES,
        choices=("native", "best-effort", "testing-only", "disabled"),
        summary="Where the load balancer's program runs.",
        effect="C(native) runs in every device's driver and refuses devices whose driver cannot; C(best-effort) runs"
        " natively where the driver can and in generic mode elsewhere; C(testing-only) always runs in generic mode,"
        " which works on every device and is slower; C(disabled) uses no XDP but a program at tc ingress, which needs"
        " nothing of the driver and leaves the XDP hook free. A change between XDP and tc attaches the new program"
        " before the old one goes. The default differs from Cilium's C(disabled) for the sake of speed.",
        example="best-effort",
    ),
    Option(
        key="devices",
        param="devices",
        variable="datapath_devices",
        kind=Kind.LIST,
        default=(),
        group=Group.DEVICES,
        values=checks.DEVICES_FORM,
        check=checks.devices,
        summary="Devices that requests and replies arrive on; C(eth+) is every device whose name starts with C(eth).",
        effect="The programs are attached to these devices. Empty means the devices of the default routes and those"
        " that lead to backends.",
        example=("eth0", "ens+"),
    ),
    Option(
        key="direct-routing-device",
        param="direct_routing_device",
        variable="datapath_direct_routing_device",
        kind=Kind.TEXT,
        default="",
        group=Group.DEVICES,
        values=checks.DEVICE_FORM,
        check=checks.device,
        summary="Device whose address requests carry towards the backends.",
        effect="Its first global address of each family is the source of all translated requests, and the device is"
        " always one of C(devices). Empty means the default route's device, else the one towards the backends.",
        example="eth0",
    ),
    Option(
        key="datapath-snat-port-range",
        param="snat_port_range",
        variable="datapath_snat_port_range",
        kind=Kind.PORT_RANGE,
        default=PortRange(1024, 29999),
        group=Group.LOAD_BALANCER,
        values=checks.PORTS_FORM,
        check=checks.port_range,
        summary="Source ports of translated requests.",
        effect="Bounds the flows to one backend. The range must be disjoint from C(net.ipv4.ip_local_port_range):"
        " the node's own connections to a backend, health checks for example, must not be taken for replies.",
        example=PortRange(1024, 31999),
    ),
    Option(
        key="datapath-lb-peers",
        param="lb_peers",
        variable="datapath_lb_peers",
        kind=Kind.ADDRESSES,
        default=(),
        group=Group.LOAD_BALANCER,
        summary="Addresses by which load balancers know each other: those that their translated requests carry.",
        effect="An ICMP error about a flow with C(snat) reaches whichever load balancer routers choose, and only the"
        " one that has the flow can translate it. With this list the others hand the error on to each other, in IP"
        " tunnels, until it is there. The list is the same on all load balancers of a set of VIPs, the node itself"
        " included; of each address family all of them or none. Without C(snat) it has no effect.",
        example=(ipaddress.ip_address("10.0.0.11"), ipaddress.ip_address("10.0.0.12")),
    ),
    Option(
        key="service-no-backend-response",
        param="no_backend_response",
        variable="datapath_no_backend_response",
        kind=Kind.TEXT,
        default="reject",
        group=Group.LOAD_BALANCER,
        choices=("reject", "drop"),
        summary="What a client of a service without a usable backend gets.",
        effect="C(reject) answers with ICMP port unreachable, so that the client fails at once; C(drop) is silent.",
        example="drop",
    ),
    Option(
        key="bpf-lb-enable-wildcard-entries",
        param="wildcard_entries",
        variable="datapath_lb_enable_wildcard_entries",
        kind=Kind.BOOL,
        default=True,
        group=Group.LOAD_BALANCER,
        summary="Whether packets to a VIP's ports that are no frontend are dropped.",
        effect="When true, a VIP's unknown port is dropped. When false, such packets go to the node's own stack.",
        example=False,
    ),
    Option(
        key="enable-ipv4",
        param="enable_ipv4",
        variable="cilium_enable_ipv4",
        kind=Kind.BOOL,
        default=True,
        group=Group.LOAD_BALANCER,
        summary="Whether IPv4 packets are looked at.",
        effect="When false, IPv4 packets go to the node's own stack and IPv4 services are refused.",
        example=False,
    ),
    Option(
        key="enable-ipv6",
        param="enable_ipv6",
        variable="cilium_enable_ipv6",
        kind=Kind.BOOL,
        default=True,
        group=Group.LOAD_BALANCER,
        summary="Whether IPv6 packets are looked at.",
        effect="When false, IPv6 packets go to the node's own stack and IPv6 services are refused.",
        example=False,
    ),
    Option(
        key="bpf-lb-map-max",
        param="map_max",
        variable="datapath_lb_map_max",
        kind=Kind.INT,
        default=65536,
        group=Group.MAPS,
        minimum=1,
        maximum=checks.MAP_LIMIT,
        summary="Size of the load balancer's maps that have no size of their own.",
        effect="Bounds frontends, backends and tables. A change stages new maps beside the old ones and swaps them"
        " under traffic.",
        example=131072,
    ),
    _size("bpf-lb-service-map-max", "frontends"),
    _size("bpf-lb-service-backend-map-max", "backends", " A backend counts once a service and protocol."),
    _size("bpf-lb-maglev-map-max", "tables", " A service needs one a protocol."),
    _flow_size("bpf-ct-global-tcp-max", "ct_tcp_max", "TCP", 524288),
    _flow_size("bpf-ct-global-any-max", "ct_any_max", "UDP", 262144),
    Option(
        key="datapath-dsr-backend",
        param="dsr_backend",
        variable="datapath_dsr_backend",
        kind=Kind.BOOL,
        default=False,
        group=Group.BACKEND,
        summary="Whether this node, a backend, answers clients of services with direct server return itself.",
        effect="When true, programs at tc on C(devices) take the packets of every dispatch and give replies the"
        " service's address as source. Options alone then load no load balancer: only services do.",
        example=True,
    ),
    Option(
        key="enable-bandwidth-manager",
        param="enable_bandwidth_manager",
        variable="cilium_enable_bandwidth_manager",
        kind=Kind.BOOL,
        default=False,
        group=Group.BANDWIDTH,
        summary="Whether endpoints have rates.",
        effect="When true, C(devices) send by qdisc fq, which holds packets back until the departure times that"
        " programs at tc give them, and sysctls of queues are raised. Needs kernel feature C(sch_fq). Options alone"
        " then load no load balancer: only services do.",
        example=True,
    ),
    Option(
        key="enable-host-legacy-routing",
        param="enable_host_legacy_routing",
        variable="cilium_enable_host_legacy_routing",
        kind=Kind.BOOL,
        default=True,
        group=Group.BANDWIDTH,
        summary="Whether the host's network stack routes what endpoints send.",
        effect="When false, programs at the devices of all endpoints ask the host's routing table and send packets out"
        " of C(devices) straight away. Senders then notice their rate at once, and a small request does not wait behind"
        " a bulk flow of the same endpoint. The host's netfilter (masquerading, firewalls), C(rp_filter) and IPsec"
        " policies do not see these packets. Needs C(enable-bandwidth-manager). Cilium's default is C(false), and what"
        " it does without masquerading by BPF is C(true).",
        example=False,
    ),
    Option(
        key="enable-bbr",
        param="enable_bbr",
        variable="cilium_enable_bandwidth_manager_bbr",
        kind=Kind.BOOL,
        default=False,
        group=Group.BANDWIDTH,
        summary="Whether TCP uses BBR, which finds out a path's rate instead of waiting for losses.",
        effect="When true, BBR is the default algorithm of the host and of network namespaces that are made afterwards,"
        " which are those of endpoints; and TCP does not start anew after a pause. Needs C(enable-bandwidth-manager)"
        " and kernel feature C(tcp_bbr). Qdisc fq paces BBR, and packets of endpoints have to reach it on their"
        " socket's account. So endpoints need C(enable-host-legacy-routing: false) and kernel feature C(delivery_time);"
        " or else set C(enable-bbr-hostns-only).",
        example=True,
    ),
    Option(
        key="enable-bbr-hostns-only",
        param="enable_bbr_hostns_only",
        variable="datapath_enable_bbr_hostns_only",
        kind=Kind.BOOL,
        default=False,
        group=Group.BANDWIDTH,
        summary="Whether only the host's own sockets use BBR, and those of endpoints do not.",
        effect="When true, a program at the root of cgroup v2 gives BBR to the sockets of the host's network namespace"
        " that have the host's default algorithm. Needs C(enable-bbr) and kernel feature C(sock_ops_netns).",
        example=True,
    ),
    Option(
        key="cluster-name",
        param="cluster_name",
        variable="cilium_cluster_name",
        kind=Kind.TEXT,
        default="default",
        group=Group.CLUSTER_MESH,
        values=clustermesh.CLUSTER_FORM,
        check=clustermesh.cluster_name,
        summary="This cluster's name in the mesh.",
        effect="No peer of the mesh may have the same name.",
        example="berlin",
    ),
    Option(
        key="cluster-id",
        param="cluster_id",
        variable="cilium_cluster_id",
        kind=Kind.INT,
        default=0,
        group=Group.CLUSTER_MESH,
        maximum=511,
        summary="This cluster's id in the mesh; 0 is that of a cluster without peers.",
        effect="A peer whose id is the same is not followed. It is at most C(max-connected-clusters).",
        example=1,
    ),
    Option(
        key="max-connected-clusters",
        param="max_connected_clusters",
        variable="datapath_max_connected_clusters",
        kind=Kind.INT,
        default=255,
        group=Group.CLUSTER_MESH,
        maximum=65535,
        values="255, 511",
        check=clustermesh.max_connected_clusters,
        summary="How many clusters the mesh may have; the same in all of them.",
        effect="Bounds the ids of clusters. A peer that was told otherwise is not followed.",
        example=511,
    ),
    Option(
        key="clustermesh-cache-ttl",
        param="clustermesh_cache_ttl",
        variable="datapath_clustermesh_cache_ttl",
        kind=Kind.DURATION,
        default=0.0,
        group=Group.CLUSTER_MESH,
        maximum=604800,
        values="0s (for ever) to 168h",
        summary="How long backends of a cluster that cannot be reached are used; 0 is for ever.",
        effect="After that time without its store (or from the executor's start on) a cluster's backends leave the"
        " tables. They return with the store.",
        example=3600.0,
    ),
    Option(
        key="kvstore-lease-ttl",
        param="kvstore_lease_ttl",
        variable="datapath_kvstore_lease_ttl",
        kind=Kind.DURATION,
        default=900.0,
        group=Group.CLUSTER_MESH,
        minimum=15,
        maximum=86400,
        summary="How long what this cluster published stays in its store when nobody is left who renews it.",
        effect="The time to live of the leases of this cluster's keys. They are renewed at a third of it.",
        example=300.0,
    ),
    Option(
        key="datapath-cluster-networks",
        param="cluster_networks",
        variable="datapath_cluster_networks",
        kind=Kind.LIST,
        default=(),
        group=Group.CLUSTER_MESH,
        values="networks by their base addresses, such as 10.1.0.0/16",
        check=clustermesh.networks,
        summary="Networks whose addresses only this cluster has.",
        effect="A service of another cluster that has a backend in one of them is not used (quarantined).",
        example=("10.1.0.0/16", "fd00:1::/48"),
    ),
    Option(
        key="arping-refresh-period",
        param="arping_refresh_period",
        variable="datapath_arping_refresh_period",
        kind=Kind.DURATION,
        default=30.0,
        group=Group.EXECUTOR,
        minimum=1,
        maximum=3600,
        summary="How often neighbours are refreshed where the kernel does not do it by itself.",
        effect="Kernels from 5.16 on keep managed neighbours resolved; on older ones the executor refreshes next hops"
        " of backends and gateways this often.",
        example=10.0,
    ),
    Option(
        key="prometheus-serve-addr",
        param="prometheus_serve_addr",
        variable="datapath_prometheus_serve_addr",
        kind=Kind.LISTEN_ADDRESS,
        default="",
        group=Group.EXECUTOR,
        summary="Address that metrics are served on; empty serves none.",
        effect="The executor answers C(GET /metrics) there, in Prometheus' text format. Nothing else is served there.",
        example="127.0.0.1:9962",
    ),
    Option(
        key="debug",
        param="debug",
        variable="cilium_debug",
        kind=Kind.BOOL,
        default=False,
        group=Group.EXECUTOR,
        summary="Whether the executor logs at level debug.",
        effect="Every plan, operation and health transition is logged to the journal.",
        example=True,
    ),
)

BY_KEY: Mapping[str, Option] = MappingProxyType({option.key: option for option in REGISTRY})
BY_PARAM: Mapping[str, Option] = MappingProxyType({option.param: option for option in REGISTRY})
BY_VARIABLE: Mapping[str, Option] = MappingProxyType({option.variable: option for option in REGISTRY})


@dataclass(frozen=True)
class Rule:
    """A condition across options."""

    keys: tuple[str, ...]
    broken: Callable[[Mapping[str, Any]], bool]
    """Takes effective options."""
    message: str
    allowed: str


def _rss_rule(version: int) -> Rule:
    key = f"bpf-lb-rss-ipv{version}-src-cidr"
    return Rule(
        keys=("bpf-lb-mode", "bpf-lb-mode-annotation", "bpf-lb-dsr-dispatch", key),
        broken=lambda options: bool(options[key]) and not modes.tunnels_in_ip(options),
        message=f"{key} is the source of IP tunnels, and no service uses one",
        allowed="bpf-lb-dsr-dispatch: ipip, and bpf-lb-mode dsr or hybrid (or bpf-lb-mode-annotation: true)",
    )


RULES: tuple[Rule, ...] = (
    Rule(
        keys=("enable-ipv4", "enable-ipv6"),
        broken=lambda options: not options["enable-ipv4"] and not options["enable-ipv6"],
        message="enable-ipv4 and enable-ipv6 are both false: nothing is left to balance",
        allowed="at least one of them true",
    ),
    Rule(
        keys=("bpf-lb-mode", "bpf-lb-mode-annotation"),
        broken=lambda options: options["bpf-lb-mode"] == "hybrid" and options["bpf-lb-mode-annotation"],
        message="hybrid chooses by protocol, so services cannot choose by bpf-lb-mode-annotation as well",
        allowed="bpf-lb-mode snat or dsr, or bpf-lb-mode-annotation: false",
    ),
    Rule(
        keys=("cluster-name", "cluster-id"),
        broken=lambda options: bool(options["cluster-id"]) and options["cluster-name"] == "default",
        message="cannot use default cluster name (default) with option cluster-id",
        allowed="a cluster-name of its own",
    ),
    Rule(
        keys=("cluster-id", "max-connected-clusters"),
        broken=lambda options: options["cluster-id"] > options["max-connected-clusters"],
        message="invalid cluster id: must be in range 0..255",
        allowed="cluster-id 1 to 255, or max-connected-clusters: 511 in all clusters",
    ),
    _rss_rule(4),
    _rss_rule(6),
    Rule(
        keys=("enable-bandwidth-manager", "enable-host-legacy-routing"),
        broken=lambda options: not options["enable-host-legacy-routing"] and not options["enable-bandwidth-manager"],
        message="what endpoints send is routed by programs of the bandwidth manager, which is switched off",
        allowed="enable-bandwidth-manager: true, or enable-host-legacy-routing: true",
    ),
    Rule(
        keys=("enable-bandwidth-manager", "enable-bbr"),
        broken=lambda options: options["enable-bbr"] and not options["enable-bandwidth-manager"],
        message="BBR needs qdisc fq, which the bandwidth manager sets up, and that is switched off",
        allowed="enable-bandwidth-manager: true, or enable-bbr: false",
    ),
    Rule(
        keys=("enable-bbr", "enable-bbr-hostns-only"),
        broken=lambda options: options["enable-bbr-hostns-only"] and not options["enable-bbr"],
        message="enable-bbr-hostns-only says whose sockets have BBR, and none has",
        allowed="enable-bbr: true, or enable-bbr-hostns-only: false",
    ),
    Rule(
        keys=("enable-bbr", "enable-bbr-hostns-only", "enable-host-legacy-routing"),
        broken=lambda options: (
            options["enable-bbr"] and not options["enable-bbr-hostns-only"] and options["enable-host-legacy-routing"]
        ),
        message="the host's stack takes packets of endpoints off their sockets' account, so that BBR there would not be"
        " paced by fq",
        allowed="enable-host-legacy-routing: false, or enable-bbr-hostns-only: true",
    ),
)


def effective(options: Options) -> Mapping[str, Any]:
    """Every option's value: what the user set, defaults for the rest."""
    return MappingProxyType({option.key: options.get(option.key, option.default) for option in REGISTRY})


def find(name: object) -> Optional[Option]:
    """The option that has this key, parameter or variable."""
    if not isinstance(name, str):
        return None
    return BY_KEY.get(name) or BY_PARAM.get(name) or BY_VARIABLE.get(name)


def unknown_option(name: object, spelling: str) -> RefusedError:
    """Why `name` is no option: a later version's, or unknown with the nearest name.

    `spelling` is the kind of name that was expected: `key`, `param` or `variable`; the nearest name is of that kind.
    """
    if isinstance(name, str) and name in LATER:
        return RefusedError(LATER[name])
    option = find(name)
    if option is None:
        names = {getattr(each, kind): each for each in REGISTRY for kind in ("key", "param", "variable")}
        match = nearest_name(name, (*names, *LATER))
        if match is not None and match in LATER:
            return RefusedError(f"unknown option; {match} would be {LATER[match]}")
        option = names[match] if match is not None else None
    return RefusedError("unknown option", None, getattr(option, spelling) if option else None)
