"""Network devices: what they are, what they carry, whether they have native XDP."""

from __future__ import annotations

import array
import contextlib
import fcntl
import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from datapath.kernel import abi, libbpf, netlink
from datapath.kernel.abi import AttachType, ProgramType
from datapath.kernel.errors import BpfError
from datapath.state.facts import Device, Interface, NextHop

NATIVE, GENERIC = "native", "generic"

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 3
_DRIVER_INFO_SIZE = 196
_MODES = {1: NATIVE, "xdp": NATIVE, 2: GENERIC, "xdpgeneric": GENERIC, 3: "offload", "xdpoffload": "offload"}
_IFF_UP = 1
_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
"""r0 = XDP_PASS; exit"""
_NETDEV_XDP_ACT_BASIC = 1
_IFINFOMSG_SIZE = 16
_IFLA_XDP, _IFLA_TARGET_NETNSID, _IFLA_XDP_ATTACHED = 43, 46, 2
_XDP_ATTACHED_NATIVE = (b"\1", b"\4")
"""In the driver alone, or in several ways."""
_RT_TABLE_MAIN = 254


@dataclass(frozen=True)
class Link:
    """A device as routing netlink shows it."""

    name: str
    index: int
    mac: str
    mtu: int
    up: bool
    xdp_mode: str
    """native, generic, offload; "" without XDP program."""
    xdp_program: int
    """Id of the program, 0 without."""
    peer: Optional[tuple[int, Optional[int]]] = None
    """Index of the device that this one is tied to (IFLA_LINK), and the id of its network namespace if another."""


def links() -> dict[str, Link]:
    """Name -> device, of this network namespace."""
    with netlink.iproute() as ip:
        found = (_link(message) for message in ip.get_links())
        return {link.name: link for link in found}


def _link(message: Any) -> Link:
    xdp = message.get_attr("IFLA_XDP")
    mode = _MODES.get(xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else None, "")
    program = (xdp.get_attr("IFLA_XDP_PROG_ID") or 0) if xdp else 0
    if xdp and not program:
        # Several programs (hardware and software): the one that packets meet in software counts.
        program = xdp.get_attr("IFLA_XDP_DRV_PROG_ID") or xdp.get_attr("IFLA_XDP_SKB_PROG_ID") or 0
        mode = NATIVE if xdp.get_attr("IFLA_XDP_DRV_PROG_ID") else mode
    peer = message.get_attr("IFLA_LINK")
    return Link(
        message.get_attr("IFLA_IFNAME"),
        message["index"],
        message.get_attr("IFLA_ADDRESS") or "",
        message.get_attr("IFLA_MTU") or 0,
        bool(message["flags"] & _IFF_UP),
        mode if program else "",
        program,
        (peer, message.get_attr("IFLA_LINK_NETNSID")) if peer else None,
    )


def addresses() -> dict[int, tuple[Interface, ...]]:
    """Interface index -> addresses, IPv4's first, in the kernel's order."""
    found: dict[int, list[Interface]] = {}
    with netlink.iproute() as ip:
        for message in ip.get_addr():
            # On a point-to-point device IFA_ADDRESS is the other end.
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if address:
                interface = ipaddress.ip_interface(f"{address}/{message['prefixlen']}")
                found.setdefault(message["index"], []).append(interface)
    return {index: tuple(sorted(group, key=lambda i: i.version)) for index, group in found.items()}


def driver(name: str) -> str:
    """Name of the device's driver (ethtool's GDRVINFO), "" where it has none."""
    buffer = array.array("B", struct.pack("=I", _ETHTOOL_GDRVINFO) + bytes(_DRIVER_INFO_SIZE - 4))
    request = struct.pack("16sP", name.encode(), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
        return buffer.tobytes()[4:36].split(b"\0", 1)[0].decode(errors="replace")
    return ""


def read(names: Optional[Sequence[str]], probe_native: bool) -> dict[str, Device]:
    """Facts of the devices `names` that exist (None: of all).

    Args:
        names: device names.
        probe_native: find out whether each has native XDP. For devices that were named, that attaches a program that
            passes everything, in native mode, and removes it again, where the device carries none; some drivers
            restart their queues for it, so the others are only asked what their drivers declare.
    """
    own = addresses()
    chosen = {name: link for name, link in links().items() if names is None or name in names}
    found = {}
    for name, link in chosen.items():
        made_by = driver(name)
        native, reason = native_xdp(link, made_by, attach=names is not None) if probe_native else (None, "")
        facts = (link.index, made_by, link.mac, link.mtu, link.up, own.get(link.index, ()), native, reason)
        found[name] = Device(name, *facts, peer_xdp=peer_xdp(link) if made_by == "veth" else None)
    return found


def peer_xdp(link: Link) -> Optional[bool]:
    """Whether a veth's peer carries a native XDP program; None where the kernel does not tell.

    It tells about another namespace to whoever has CAP_NET_ADMIN over it: not inside a user namespace.
    """
    if link.peer is None:
        return None
    index, namespace = link.peer
    request = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
    if namespace is not None:
        request += netlink.attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", namespace))
    error, body = netlink.exchange([(netlink.RTM_GETLINK, 0, request)])[0]
    if error:
        return None
    xdp = netlink.attributes(netlink.attributes(body[_IFINFOMSG_SIZE:]).get(_IFLA_XDP, b""))
    return xdp.get(_IFLA_XDP_ATTACHED) in _XDP_ATTACHED_NATIVE


def native_xdp(link: Link, driver_name: str, attach: bool) -> tuple[Optional[bool], str]:
    """Whether the device has native XDP, and why not; None where that cannot be told without attaching."""
    if link.xdp_mode == NATIVE:
        return True, ""
    of_driver = f"driver {driver_name}" if driver_name else "a device without driver"
    features = xdp_features(link.index)
    if features is not None and not features & _NETDEV_XDP_ACT_BASIC:
        return False, f"{of_driver} does not implement native XDP"
    if link.xdp_program or not attach:
        return (True, "") if features is not None else (None, "")
    error = _try_native(link.index)
    if error:
        return False, f"{of_driver} refuses a native XDP program: {os.strerror(error)} (MTU {link.mtu})"
    return True, ""


def _try_native(index: int) -> int:
    """Attach a program that passes everything, natively, and detach it; errno of the refusal, or 0."""
    with libbpf.closing(libbpf.program_load(ProgramType.XDP, _PASS)) as program:
        try:
            attached = libbpf.link_create(program, index, AttachType.XDP, abi.XDP_FLAGS_DRV_MODE)
        except BpfError as e:
            return e.errno or 0
        with libbpf.closing(attached):
            libbpf.link_detach(attached)
    return 0


def xdp_features(index: int) -> Optional[int]:
    """`enum netdev_xdp_act` bits that the driver declares (kernel 6.3, commit d3d854fd6a1d); None on older kernels."""
    family = _netdev_family()
    if family is None:
        return None
    request = struct.pack("=BBH", 1, 1, 0) + netlink.attribute(1, struct.pack("=I", index))
    error, body = netlink.exchange([(family, 0, request)], netlink.NETLINK_GENERIC)[0]
    data = netlink.attributes(body[4:]).get(3)
    return None if error or data is None else int(struct.unpack("=Q", data)[0])


@functools.cache
def _netdev_family() -> Optional[int]:
    """Number of the generic netlink family `netdev`."""
    controller, get_family, family_id, family_name = 16, 3, 1, 2
    request = struct.pack("=BBH", get_family, 1, 0) + netlink.attribute(family_name, b"netdev\0")
    error, body = netlink.exchange([(controller, 0, request)], netlink.NETLINK_GENERIC)[0]
    data = netlink.attributes(body[4:]).get(family_id)
    return None if error or data is None else int(struct.unpack("=H", data)[0])


@dataclass(frozen=True)
class Routes:
    """What the main routing table says of the way out."""

    default_devices: tuple[str, ...]
    gateways: tuple[NextHop, ...]


def routes() -> Routes:
    """Devices of default routes (IPv4's first) and gateways of all routes of the main table."""
    names = dict(socket.if_nameindex())
    defaults: dict[str, None] = {}
    gateways: dict[NextHop, None] = {}
    with netlink.iproute() as ip:
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in ip.get_routes(family=family, table=_RT_TABLE_MAIN):
                for index, gateway in _hops(message):
                    device = names.get(index)
                    if device is None or device == "lo":
                        continue
                    if message["dst_len"] == 0:
                        defaults[device] = None
                    if gateway:
                        gateways[NextHop(device, ipaddress.ip_address(gateway))] = None
    return Routes(tuple(defaults), tuple(gateways))


def _hops(message: Any) -> Iterator[tuple[int, str]]:
    """(interface index, gateway or "") of a route and of each of its paths."""
    parts = message.get_attr("RTA_MULTIPATH") or (message,)
    for part in parts:
        via: Mapping[str, Any] = part.get_attr("RTA_VIA") or {}
        index = part["oif"] if "oif" in part else part.get_attr("RTA_OIF")
        yield index or 0, part.get_attr("RTA_GATEWAY") or via.get("addr") or ""
