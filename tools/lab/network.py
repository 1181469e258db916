"""The lab's network: a namespace for each node, veth links between them, one management link to the host each.

Everything is compared with what is there before it is touched, so that a second run changes nothing. The network
belongs to the namespaces and not to the nodes' systems: a node that reboots finds its links as they were.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.lab.system import in_namespace, run, run_json
from tools.lab.topology import PREFIX, End, Layout, Node, Route, Topology

MANAGEMENT_DEVICE = "mgmt0"
COMMON_SYSCTLS = {
    # Addresses are usable at once, and nobody but the topology configures the links.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
}
_OFFLOADS = {
    # Packets that leave a sender must carry whole checksums, since XDP rewrites them further on.
    "tx-checksumming": ("tx", "off"),
    # A veth takes frames that XDP sends to it only while it polls (NAPI), which GRO turns on.
    "generic-receive-offload": ("gro", "on"),
}


def ensure(layout: Layout, topology: Topology) -> list[str]:
    """Make the network exist; returns what had to be done, in words."""
    namespaces = {row["name"] for row in run_json("ip", "-j", "netns", "list")}
    done = []
    for node in topology.nodes:
        if node.namespace not in namespaces:
            run("ip", "netns", "add", node.namespace)
            done.append(f"namespace {node.namespace}")
        done += _ensure_sysctls(node.namespace, {**COMMON_SYSCTLS, **node.sysctls})
        done += _ensure_management(topology, node)
    for link in topology.links:
        done += _ensure_link(layout, *link)
    for node in topology.nodes:
        done += _ensure_routes(node)
    return done


def remove() -> list[str]:
    """Remove everything of the lab's network from this host, whoever made it; returns what was removed."""
    done = []
    for name in namespaces():
        run("ip", "netns", "delete", name)
        done.append(f"namespace {name}")
    for name in host_links():
        # The kernel takes a namespace's links down in its own time: gone already is as good.
        run("ip", "link", "delete", name, check=False)
        done.append(f"link {name}")
    return done


def namespaces() -> list[str]:
    """The lab's namespaces that exist."""
    return sorted(row["name"] for row in run_json("ip", "-j", "netns", "list") if row["name"].startswith(PREFIX))


def host_links() -> list[str]:
    """The lab's links that exist on the host."""
    return sorted(path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(PREFIX))


def _ensure_sysctls(namespace: str, want: Mapping[str, str]) -> list[str]:
    have = in_namespace(namespace, ("sysctl", "-n", *want)).split("\n")
    wrong = [f"{name}={value}" for (name, value), is_value in zip(want.items(), have) if value != is_value]
    if wrong:
        in_namespace(namespace, ("sysctl", "-q", "-w", *wrong))
    return [f"{namespace}: sysctl {setting}" for setting in wrong]


def _ensure_management(topology: Topology, node: Node) -> list[str]:
    done = []
    device = MANAGEMENT_DEVICE
    if device not in _addresses(node.namespace):
        run("ip", "link", "add", device, "netns", node.namespace, "type", "veth", "peer", "name", node.namespace)
        done.append(f"link {node.namespace}")
    inside = run_json("ip", "-n", node.namespace, "-j", "address", "show", "dev", device)
    if node.management not in _local_addresses(inside):
        here, there = f"{topology.management}", f"{node.management}"
        run("ip", "address", "replace", here, "peer", there, "dev", node.namespace)
        run("ip", "link", "set", node.namespace, "up")
        run("ip", "-n", node.namespace, "address", "replace", there, "peer", here, "dev", device)
        run("ip", "-n", node.namespace, "link", "set", "lo", "up")
        run("ip", "-n", node.namespace, "link", "set", device, "up")
        done.append(f"{node.namespace}: management address {there}")
    return done


def _ensure_link(layout: Layout, end: End, peer: End) -> list[str]:
    done = []
    if end.device not in _addresses(PREFIX + end.node):
        run(
            *("ip", "link", "add", end.device, "netns", PREFIX + end.node, "type", "veth"),
            *("peer", "name", peer.device, "netns", PREFIX + peer.node),
        )
        done.append(f"link {end.node}/{end.device} - {peer.node}/{peer.device}")
    for side in (end, peer):
        done += _ensure_offloads(side) + _ensure_addresses(side)
        if side.takes_xdp_tx:
            done += _ensure_pass_program(layout, side)
    return done


def _ensure_pass_program(layout: Layout, end: End) -> list[str]:
    namespace = PREFIX + end.node
    if run_json("ip", "-n", namespace, "-j", "link", "show", "dev", end.device)[0].get("xdp"):
        return []
    if not layout.pass_program.exists():
        source = Path(__file__).parent / "pass.bpf.c"
        headers = f"/usr/include/{platform.machine()}-linux-gnu"
        command = ("clang", "-O2", "-g", "-target", "bpf", "-idirafter", headers, "-c", str(source))
        run(*command, "-o", str(layout.pass_program))
    attach = ("xdpdrv", "object", str(layout.pass_program), "section", "xdp")
    run("ip", "-n", namespace, "link", "set", "dev", end.device, *attach)
    return [f"{end.node}/{end.device}: takes XDP_TX"]


def _ensure_addresses(end: End) -> list[str]:
    namespace = PREFIX + end.node
    missing = [address for address in end.addresses if address not in _addresses(namespace)[end.device]]
    if missing:
        run("ip", "-n", namespace, "link", "set", end.device, "up")
    for address in missing:
        run("ip", "-n", namespace, "address", "add", address, "dev", end.device)
    return [f"{end.node}/{end.device}: address {address}" for address in missing]


def _ensure_offloads(end: End) -> list[str]:
    namespace = PREFIX + end.node
    features = dict(
        line.strip().split(": ", 1) for line in in_namespace(namespace, ("ethtool", "-k", end.device)).splitlines()[1:]
    )
    wrong = [short for name, short in _OFFLOADS.items() if features[name].split()[0] != short[1]]
    for setting in wrong:
        in_namespace(namespace, ("ethtool", "-K", end.device, *setting))
    return [f"{end.node}/{end.device}: {name} {value}" for name, value in wrong]


def _ensure_routes(node: Node) -> list[str]:
    have = {
        (row["dst"], gateways)
        for family in ("-4", "-6")
        for row in run_json("ip", "-n", node.namespace, "-j", family, "route", "show", "proto", "static")
        for gateways in [_gateways(row)]
    }
    missing = [route for route in node.routes if (route.to, frozenset(route.via)) not in have]
    for route in missing:
        family = "-6" if ":" in route.via[0] else "-4"
        run("ip", "-n", node.namespace, family, "route", "replace", route.to, "proto", "static", *_next_hops(route))
    return [f"{node.name}: route to {route.to} via {' and '.join(route.via)}" for route in missing]


def _next_hops(route: Route) -> Sequence[str]:
    if len(route.via) == 1:
        return ("via", route.via[0])
    return [word for gateway in route.via for word in ("nexthop", "via", gateway, "weight", "1")]


def _gateways(row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(hop["gateway"] for hop in row.get("nexthops", [row]) if "gateway" in hop)


def _addresses(namespace: str) -> dict[str, set[str]]:
    """Device -> its addresses with prefix length, in one namespace."""
    return {
        row["ifname"]: {f"{info['local']}/{info['prefixlen']}" for info in row["addr_info"] if "local" in info}
        for row in run_json("ip", "-n", namespace, "-j", "address", "show")
    }


def _local_addresses(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    return {info["local"] for row in rows for info in row.get("addr_info", []) if "local" in info}
