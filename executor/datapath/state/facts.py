"""Facts about the node, as read from its kernel (never configured, never remembered)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional, Union

from datapath.state.model import IPAddress

Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]


@dataclass(frozen=True)
class Channels:
    """Channels as `ethtool -l` tells them: combined ones, or receive queues where the driver has them apart."""

    used: int
    most: int


@dataclass(frozen=True)
class Tag:
    """What a VLAN device's frames carry on its parent (IEEE 802.1Q, 9.4)."""

    protocol: int
    """0x8100 (802.1Q) or 0x88a8 (802.1ad)."""
    vlan: int


@dataclass(frozen=True)
class Device:
    """A network device."""

    name: str
    index: int
    driver: str
    """As ethtool's GDRVINFO tells it: `veth`, `virtio_net`, `mlx5_core`...; "" where the device has none."""
    mac: str
    mtu: int
    up: bool
    addresses: tuple[Interface, ...] = ()
    native_xdp: Optional[bool] = None
    """As the driver declares it, or as attaching a harmless program has shown; None where neither tells."""
    native_xdp_reason: str = ""
    """Why not, in one sentence, when `native_xdp` is False."""
    peer_xdp: Optional[bool] = None
    """Of a veth: whether its peer carries a native XDP program; None where that cannot be seen from here."""
    native_xdp_remedy: str = ""
    """What to do about it, where something is known."""
    kind: str = ""
    """What kind of virtual device: `bond`, `vlan`, `veth`...; "" for hardware."""
    lower: tuple[str, ...] = ()
    """Devices that its frames arrive at first: a bond's ports, a VLAN's parent."""
    xdp_mode: str = ""
    """How an XDP program is attached now: native, generic, offload; "" where none is."""
    channels: Optional[Channels] = None
    several_buffers: bool = False
    """Whether its MTU (of a veth, the other end's) is so large that XDP gets frames in several buffers, where driver
    and kernel have that."""
    tag: Optional[Tag] = None
    """Of a VLAN device."""
    queues: int = 1
    """That it may send by, in use or not."""
    takes_tags_off: bool = False
    """Whether the hardware takes VLAN tags off frames before XDP sees them (ethtool's `rx-vlan-offload`)."""


@dataclass(frozen=True)
class NextHop:
    """Where frames to some address go first."""

    device: str
    address: IPAddress
    """The neighbour that frames go to: a gateway, or the destination itself when on link."""
    mtu: int = field(default=0, compare=False)
    """The route's own MTU; 0 where the device's holds."""


@dataclass(frozen=True)
class NodeFacts:
    """What compiling depends on."""

    kernel: str
    """As `uname -r`."""
    cpus: int
    jiffies_hz: int
    features: Mapping[str, bool]
    """Feature name (`datapath.kernel.features`) -> present, probed."""
    devices: Mapping[str, Device]
    default_devices: tuple[str, ...] = ()
    """Devices of default routes, IPv4's first."""
    gateways: tuple[NextHop, ...] = ()
    """Gateways of all routes in the main table."""
    next_hops: Mapping[IPAddress, NextHop] = field(default_factory=dict)
    """Backend address -> its next hop; an address without a route is missing."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Values of the sysctls that compile asks about (forwarding, accept_ra, local port range)."""
    originals: Mapping[str, str] = field(default_factory=dict)
    """Of sysctls that the executor has changed, the values before."""
    netns_cookie: int = 0
    """What tells the host's network namespace apart; 0 on kernels that do not say it."""
