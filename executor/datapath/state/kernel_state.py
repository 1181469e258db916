"""Our part of the kernel: what it should hold (want) and what it holds (have) are both a `KernelState`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Optional

from datapath.state.model import IPAddress, Program

Entries = Mapping[bytes, bytes]
"""Map key -> map value, both in the kernel's own layout (`datapath.compile.layouts`)."""


@dataclass(frozen=True)
class LoadBalancer:
    """The load balancer's program and where it is attached."""

    config: bytes
    """Contents of its `.rodata.config` section (`datapath.compile.layouts.Config`), build id included."""
    attachments: Mapping[str, str] = field(default_factory=dict)
    """Device name -> XDP mode, `native` or `generic`, or else `tc`."""
    program_tag: str = ""
    """The kernel's tag of the attached program; want leaves it empty (the config holds the build id)."""
    foreign: Mapping[str, str] = field(default_factory=dict)
    """Have only. Device -> what is wrong there: a foreign program, or ours using other maps than the pinned ones."""


@dataclass(frozen=True)
class NodePrograms:
    """The programs by which this node, a backend, answers clients of services with direct server return."""

    config: bytes
    """Contents of their `.rodata.config` section (`datapath.compile.layouts.NodeConfig`), build id included."""
    devices: frozenset[str]
    """Names of the devices that they are attached to, at tc ingress and egress."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Have only. Device -> what is wrong there: one program of two, or not the pinned one."""


@dataclass(frozen=True)
class BandwidthPrograms:
    """The programs of the bandwidth manager."""

    config: bytes
    """Contents of their `.rodata.config` section (`datapath.compile.layouts.BandwidthConfig`), build id included."""
    native: frozenset[str]
    """Devices that lead out of the node, at tc egress."""
    endpoints: frozenset[str]
    """Endpoints' devices, at tc ingress and egress."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Have only. Device -> what is wrong there: a program is missing, or not the pinned one."""


@dataclass(frozen=True)
class Qdisc:
    """What queues a device's packets."""

    text: str
    """Kind and, of one of ours, leaves and options; of what somebody configured, its handle."""
    owner: str
    """`ours`, `kernel` (a default) or `other` (somebody configured it)."""


@dataclass(frozen=True)
class Neighbour:
    """A permanent-care neighbour entry: the kernel (NTF_EXT_MANAGED) or the executor keeps it resolved."""

    device: str
    address: IPAddress


@dataclass(frozen=True)
class UserProgram:
    """A user's program as the kernel knows it."""

    program: Program
    tag: str
    """The kernel's program tag, as 16 hex digits."""
    data: str = ""
    """SHA-256 over the definitions of the program's maps and its frozen read-only data, "" where it has no maps."""


@dataclass(frozen=True)
class KernelState:
    """Everything of ours in the kernel."""

    map_sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Map name -> max_entries."""
    entries: Mapping[str, Entries] = field(default_factory=lambda: MappingProxyType({}))
    """Contents of the maps that desired state decides: services, backends, addresses, rates..."""
    luts: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}))
    """LUT id -> the table, `table size` little-endian-native u32 backend ids."""
    load_balancer: Optional[LoadBalancer] = None
    node: Optional[NodePrograms] = None
    bandwidth: Optional[BandwidthPrograms] = None
    host_bbr: Optional[bytes] = None
    """Configuration (`datapath.compile.layouts.BbrConfig`) of the program by which the host's own sockets have BBR;
    None without it."""
    qdiscs: Mapping[str, Qdisc] = field(default_factory=lambda: MappingProxyType({}))
    """Device -> its root qdisc; want names only ours."""
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    neighbours: frozenset[Neighbour] = frozenset()
    programs: Mapping[str, UserProgram] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def own_qdiscs(self) -> Mapping[str, Qdisc]:
        """Those of `qdiscs` that are ours, by device in order."""
        return {device: qdisc for device, qdisc in sorted(self.qdiscs.items()) if qdisc.owner == "ours"}
