"""Desired state: what the user asked this node for.

Everything here is frozen and already valid: only `datapath.spec` constructs it from outside input.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Optional, Union

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
IPNetwork = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class Protocol(enum.Enum):
    """Layer 4 protocol of a frontend; the value is its IANA number."""

    TCP = 6
    UDP = 17


class BackendState(enum.Enum):
    """State of a backend; the value is what the datapath stores (Cilium's backend state flags)."""

    ACTIVE = 0
    TERMINATING = 1
    QUARANTINED = 2
    MAINTENANCE = 3


class Algorithm(enum.Enum):
    """How a new flow chooses its backend; the values are Cilium's algorithm ids."""

    RANDOM = 1
    MAGLEV = 2


class Mode(enum.Enum):
    """How requests of a service reach its backends, and replies the clients."""

    SNAT = "snat"
    """Both through the load balancer."""
    DSR = "dsr"
    """Direct server return: backends answer the clients themselves."""


class CheckType(enum.Enum):
    """How a backend's health is asked for."""

    TCP = "tcp"
    HTTP = "http"
    HTTPS = "https"


class AllFailed(enum.Enum):
    """What a service does when every health check fails.

    CLOSED answers as a service without backends does (option `service-no-backend-response`);
    OPEN uses all backends as if they were healthy.
    """

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True)
class Frontend:
    """Where clients connect to; a VIP is the address of one or more of these."""

    address: IPAddress
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}/{self.protocol.name}"


@dataclass(frozen=True)
class Backend:
    """Where traffic of a service goes to."""

    address: IPAddress
    port: int
    weight: int = 100
    """0 to 65535; 0 is the same as state maintenance: in no table."""
    state: BackendState = BackendState.ACTIVE

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class HealthCheck:
    """How every load-balancer node checks the backends of a service."""

    type: CheckType
    interval: float = 2.0
    """Seconds between the starts of two checks of one backend."""
    timeout: float = 1.0
    """Seconds; never longer than `interval`."""
    rise: int = 2
    """Consecutive successes that make an unhealthy backend healthy."""
    fall: int = 3
    """Consecutive failures that make a healthy backend unhealthy."""
    port: Optional[int] = None
    """Port to check; None is the backend's own."""
    path: str = "/"
    host: Optional[str] = None
    """Host header (and TLS server name) of an HTTP(S) check; None is the backend's address."""
    status: tuple[int, ...] = (200,)
    """HTTP status codes that count as healthy."""
    verify_tls: bool = True
    all_failed: AllFailed = AllFailed.CLOSED


class Affinity(enum.Enum):
    """Which backends of a global service are preferred, by where they are."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True)
class Service:
    """Frontends of one address family that share their traffic among backends.

    Backends are of the same family, unless packets go to them in IP tunnels.
    """

    name: str
    frontends: tuple[Frontend, ...]
    backends: tuple[Backend, ...]
    algorithm: Optional[Algorithm] = None
    """None follows option `bpf-lb-algorithm`."""
    health_check: Optional[HealthCheck] = None
    mode: Optional[Mode] = None
    """None follows option `bpf-lb-mode`."""
    is_global: bool = False
    """Whether backends of other clusters' services of its name in the mesh, which those share, serve it as well."""
    affinity: Affinity = Affinity.NONE
    shared: bool = True
    """Whether other clusters may use its backends, where it is global."""
    mesh_name: str = ""
    """NAMESPACE/NAME in the mesh; "" is the service's own name."""
    port_name: str = ""
    """Name of its port in the mesh."""


class Hook(enum.Enum):
    """Where a user's own program (module `program`) is attached."""

    NONE = "none"
    XDP = "xdp"
    TC = "tc"
    CGROUP = "cgroup"


@dataclass(frozen=True)
class Program:
    """A user's own program, managed by module `program`: from an eBPF object, or from C source."""

    name: str
    object_path: str
    """Path of the ELF object on the node; "" where there is a source."""
    function: Optional[str] = None
    """Program (function) in the object or source; None where it holds exactly one."""
    hook: Hook = Hook.NONE
    device: Optional[str] = None
    """Hooks xdp and tc."""
    mode: str = "native"
    """Hook xdp: native or generic."""
    direction: str = "ingress"
    """Hook tc: ingress or egress."""
    cgroup: Optional[str] = None
    """Hook cgroup: path of the cgroup v2 directory."""
    pin: Optional[str] = None
    """Where the program is pinned; None is `<pins>/programs/<name>`."""
    source: Optional[str] = None
    """C text that bcc compiles on the node (hooks xdp and tc); None where there is an object."""


@dataclass(frozen=True)
class Endpoint:
    """The host itself, or what is behind one of its devices.

    Exactly one of `interface`, `interfaces` and `host` says where it is.
    """

    name: str
    interface: Optional[str] = None
    """The device on the host's side: of a container its veth, of a virtual machine its tap."""
    interfaces: Optional[str] = None
    """A pattern (`ve-*`): each device that it matches is an endpoint of its own, `name/device`."""
    host: bool = False
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Sorted by key."""
    addresses: tuple[IPAddress, ...] = ()
    """Those of the endpoint, not of the device on the host's side."""
    egress_bandwidth: Optional[int] = None
    """Bits a second that it may send, as its frames are on the wire."""
    ingress_bandwidth: Optional[int] = None
    """Bits a second that it may receive."""
    priority: Optional[int] = None
    """Of the packets that it sends, for qdisc fq (`TC_PRIO_`)."""


class StoreEndpoint(NamedTuple):
    """Where a member of a cluster's store listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Peer:
    """Another cluster of the mesh: its store, and the files on this node that open it."""

    name: str
    endpoints: tuple[StoreEndpoint, ...]
    ca: str
    certificate: str
    key: str


@dataclass(frozen=True)
class MeshNode:
    """What this node tells other clusters of itself."""

    name: str
    """"" is the host's name."""
    addresses: tuple[IPAddress, ...]
    pod_cidrs: tuple[IPNetwork, ...] = ()
    """Networks of the node's endpoints."""


@dataclass(frozen=True)
class OwnStore:
    """This cluster's own store, where this node publishes, and the files that open it."""

    endpoints: tuple[StoreEndpoint, ...]
    ca: str
    certificate: str
    key: str
    node: MeshNode
    publisher: bool = False
    """Whether this node may be the one that publishes what is the cluster's: services, its id, the heartbeat."""


StorePlace = Union[Peer, OwnStore]
"""A store that is connected to."""

Options = Mapping[str, Any]
"""Option key (the Cilium agent key) -> typed value; holds only what the user set."""


@dataclass(frozen=True)
class DesiredState:
    """Everything that the user asked this node for."""

    options: Options = field(default_factory=lambda: MappingProxyType({}))
    services: tuple[Service, ...] = ()
    """Sorted by name."""
    programs: tuple[Program, ...] = ()
    """Sorted by name."""
    endpoints: tuple[Endpoint, ...] = ()
    """Sorted by name."""
    peers: tuple[Peer, ...] = ()
    """Sorted by name."""
    store: Optional[OwnStore] = None
    """None where this node publishes nothing."""
