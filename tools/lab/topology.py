"""What the lab should look like, as the inventory tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.lab.system import LabError

PREFIX = "lab-"
"""Of everything on the host that belongs to the lab: namespaces, links, machines."""

_LONGEST_NAME = 15 - len(PREFIX)


@dataclass(frozen=True)
class End:
    """One end of a link."""

    node: str
    device: str
    addresses: tuple[str, ...]
    """With prefix length, as `198.18.11.10/24`."""
    takes_xdp_tx: bool = False
    """Whether the other end sends frames by XDP_TX, which this one must be made to take (`pass.bpf.c`)."""


@dataclass(frozen=True)
class Route:
    """A static route of a node."""

    to: str
    via: tuple[str, ...]
    """Gateways; more than one is ECMP with equal weights."""


@dataclass(frozen=True)
class Node:
    """One machine."""

    name: str
    management: str
    """IPv4 address that the host reaches the node at."""
    routes: tuple[Route, ...]
    sysctls: Mapping[str, str]
    units: tuple[str, ...]
    """systemd units of the image that run on this node."""

    @property
    def namespace(self) -> str:
        """Name of its network namespace on the host, of its machine and of the host's end of its management link."""
        return PREFIX + self.name


@dataclass(frozen=True)
class Topology:
    """All machines and the links between them."""

    management: str
    """The host's own address on every management link."""
    nodes: tuple[Node, ...]
    links: tuple[tuple[End, End], ...]


def parse(document: Any) -> Topology:
    """Build the topology from `{"management": address, "nodes": {name: node}}`; raises `LabError`."""
    try:
        nodes = document["nodes"]
        return Topology(
            management=document["management"],
            nodes=tuple(_node(name, nodes[name]) for name in sorted(nodes)),
            links=tuple(_link(name, link) for name in sorted(nodes) for link in nodes[name].get("links", [])),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise LabError(f"the topology is not complete: {error!r}") from error


def _node(name: str, node: Mapping[str, Any]) -> Node:
    if len(name) > _LONGEST_NAME:
        raise LabError(f"node name {name!r}: at most {_LONGEST_NAME} characters, links are named after it")
    return Node(
        name=name,
        management=node["management"],
        routes=tuple(Route(route["to"], tuple(route["via"])) for route in node.get("routes", [])),
        sysctls={key: str(value) for key, value in node.get("sysctls", {}).items()},
        units=tuple(node.get("units", [])),
    )


def _link(name: str, link: Mapping[str, Any]) -> tuple[End, End]:
    peer = link["peer"]
    return (
        End(name, link["device"], tuple(link["addresses"])),
        End(peer["node"], peer["device"], tuple(peer["addresses"]), peer.get("takes_xdp_tx", False)),
    )


@dataclass(frozen=True)
class Layout:
    """Where the lab keeps its files."""

    root: Path

    @property
    def images(self) -> Path:
        """Base trees that nodes are overlays of."""
        return self.root / "image"

    @property
    def nodes(self) -> Path:
        """One folder a node."""
        return self.root / "nodes"

    @property
    def keys(self) -> Path:
        """Host keys (one pair a node) and the key that the host logs in with."""
        return self.root / "keys"

    @property
    def known_hosts(self) -> Path:
        """The nodes' host keys, for ssh."""
        return self.keys / "known_hosts"

    @property
    def login_key(self) -> Path:
        """Private key that every node accepts for root."""
        return self.keys / "id_ed25519"

    @property
    def ssh_config(self) -> Path:
        """Configuration that lets ssh know the nodes by their names."""
        return self.root / "ssh_config"

    @property
    def ssh(self) -> Path:
        """Script for people: `build/lab/ssh lb1 datapath status`."""
        return self.root / "ssh"

    @property
    def pass_program(self) -> Path:
        """`pass.bpf.c`, compiled."""
        return self.root / "pass.bpf.o"

    @property
    def log(self) -> Path:
        """What the tools said."""
        return self.root / "lab.log"
