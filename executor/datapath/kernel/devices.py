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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from datapath.compile import drivers
from datapath.kernel import abi, libbpf, netlink
from datapath.kernel.abi import AttachType, ProgramType
from datapath.kernel.errors import BpfError
from datapath.state.facts import Channels, Device, Interface, NextHop, Tag

NATIVE, GENERIC = "native", "generic"

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO, _ETHTOOL_GFLAGS, _ETHTOOL_GCHANNELS = 3, 0x25, 60
_ETH_FLAG_RXVLAN = 1 << 8
_DRIVER_INFO_SIZE = 196
_MODES = {1: NATIVE, "xdp": NATIVE, 2: GENERIC, "xdpgeneric": GENERIC, 3: "offload", "xdpoffload": "offload"}
_IFF_UP = 1
_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
"""r0 = XDP_PASS; exit"""
_NETDEV_XDP_ACT_BASIC = 1
_NETDEV_XDP_ACT_RX_SG = 32
_IFINFOMSG_SIZE = 16
_IFLA_MTU, _IFLA_XDP, _IFLA_TARGET_NETNSID = 4, 43, 46
_IFLA_XDP_FD, _IFLA_XDP_ATTACHED, _IFLA_XDP_FLAGS = 1, 2, 3
_XDP_FLAGS_UPDATE_IF_NOEXIST = 1
_NLA_F_NESTED = 1 << 15
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
    kind: str = ""
    """As `ip -d link` names it: bond, vlan, veth...; "" for hardware."""
    master: int = 0
    """Index of the bond or bridge that it is a port of; 0 without."""
    tag: Optional[Tag] = None
    """Of a VLAN device."""
    queues: int = 1
    """That it may send by."""


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
    peer, info = message.get_attr("IFLA_LINK"), message.get_attr("IFLA_LINKINFO")
    return Link(
        message.get_attr("IFLA_IFNAME"),
        message["index"],
        message.get_attr("IFLA_ADDRESS") or "",
        message.get_attr("IFLA_MTU") or 0,
        bool(message["flags"] & _IFF_UP),
        mode if program else "",
        program,
        (peer, message.get_attr("IFLA_LINK_NETNSID")) if peer else None,
        (info.get_attr("IFLA_INFO_KIND") or "") if info else "",
        message.get_attr("IFLA_MASTER") or 0,
        _tag(info),
        message.get_attr("IFLA_NUM_TX_QUEUES") or 1,
    )


def _tag(info: Any) -> Optional[Tag]:
    data = info.get_attr("IFLA_INFO_DATA") if info and info.get_attr("IFLA_INFO_KIND") == "vlan" else None
    return Tag(data.get_attr("IFLA_VLAN_PROTOCOL"), data.get_attr("IFLA_VLAN_ID")) if data else None


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
    answer = _ethtool(name, struct.pack("=I", _ETHTOOL_GDRVINFO) + bytes(_DRIVER_INFO_SIZE - 4))
    return answer[4:36].split(b"\0", 1)[0].decode(errors="replace")


def channels(name: str) -> Optional[Channels]:
    """The device's combined channels, else its receive queues; None where its driver has no such thing."""
    answer = _ethtool(name, struct.pack("=9I", _ETHTOOL_GCHANNELS, *[0] * 8))
    if not answer:
        return None
    _, most_receive, _, _, most_combined, receive, _, _, combined = struct.unpack("=9I", answer)
    if most_combined:
        return Channels(combined, most_combined)
    return Channels(receive, most_receive) if most_receive else None


def takes_tags_off(name: str, made_by: str) -> bool:
    """Whether the device takes VLAN tags off frames before XDP sees them. A veth hands them on as they were sent."""
    answer = _ethtool(name, struct.pack("=2I", _ETHTOOL_GFLAGS, 0)) if made_by != "veth" else b""
    return bool(answer) and bool(struct.unpack("=2I", answer)[1] & _ETH_FLAG_RXVLAN)


def _ethtool(name: str, command: bytes) -> bytes:
    """What the driver made of an ethtool command's structure; empty where it does not know the command."""
    buffer = array.array("B", command)
    request = struct.pack("16sP", name.encode(), buffer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
        return buffer.tobytes()
    return b""


def read(names: Optional[Sequence[str]], probe_native: bool) -> dict[str, Device]:
    """Facts of the devices `names` that exist (None: of all).

    Args:
        names: device names.
        probe_native: find out whether each has native XDP. For devices that were named, that attaches a program that
            passes everything, in native mode, and removes it again, where the device carries none; some drivers
            restart their queues for it, so the others are judged by what their drivers declare and are known for.
    """
    own, present = addresses(), links()
    found = {}
    for name, link in present.items():
        if names is not None and name not in names:
            continue
        made_by, peer, queues = driver(name), _peer(link) if link.kind == "veth" else None, channels(name)
        verdict, buffers = _UNPROBED, _takes_several_buffers(link.index)
        if probe_native:
            known = drivers.hindrance(
                made_by,
                name,
                link.mtu,
                queues,
                peer.mtu if peer else None,
                buffers=buffers,
            )
            verdict = native_xdp(link, made_by, known, attach=names is not None, buffers=buffers)
        found[name] = Device(
            name,
            link.index,
            made_by,
            link.mac,
            link.mtu,
            link.up,
            own.get(link.index, ()),
            verdict.native,
            verdict.reason,
            peer_xdp=peer.xdp if peer else None,
            native_xdp_remedy=verdict.remedy,
            kind=link.kind,
            lower=_lower(link, present.values()),
            xdp_mode=link.xdp_mode,
            channels=queues,
            several_buffers=buffers and drivers.several_buffers(made_by, link.mtu, peer.mtu if peer else None),
            tag=link.tag,
            queues=link.queues,
            takes_tags_off=takes_tags_off(name, made_by),
        )
    return found


def _takes_several_buffers(index: int) -> bool:
    """Whether the device takes programs for frames in several buffers, and the kernel redirects such frames.

    Drivers declare the first since the kernel can do the second (6.3, commit b9d460c92455).
    """
    declared = xdp_features(index)
    return declared is not None and bool(declared & _NETDEV_XDP_ACT_RX_SG)


def _lower(link: Link, present: Iterable[Link]) -> tuple[str, ...]:
    if link.kind == "bond":
        return tuple(sorted(each.name for each in present if each.master == link.index))
    if link.kind == "vlan" and link.peer is not None and link.peer[1] is None:
        return tuple(each.name for each in present if each.index == link.peer[0])
    return ()


@dataclass(frozen=True)
class _Peer:
    """The other end of a veth."""

    xdp: bool
    """Whether it carries a native XDP program."""
    mtu: Optional[int]


def _peer(link: Link) -> Optional[_Peer]:
    """The other end of a veth; None where the kernel does not tell.

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
    seen = netlink.attributes(body[_IFINFOMSG_SIZE:])
    xdp = netlink.attributes(seen.get(_IFLA_XDP, b""))
    mtu = struct.unpack("=I", seen[_IFLA_MTU])[0] if _IFLA_MTU in seen else None
    return _Peer(xdp.get(_IFLA_XDP_ATTACHED) in _XDP_ATTACHED_NATIVE, mtu)


@dataclass(frozen=True)
class Verdict:
    """Whether a device has native XDP; if not, why and what to do. None: only attaching one could tell."""

    native: Optional[bool]
    reason: str = ""
    remedy: str = ""


_UNPROBED = Verdict(None)


def native_xdp(
    link: Link, driver_name: str, known: Optional[drivers.Hindrance], *, attach: bool, buffers: bool
) -> Verdict:
    """Judge by what is attached, then by what the driver declares, then by trying, else by what it is known for.

    `buffers` says that the load balancer's program could take frames in several of them here.
    """
    if link.xdp_mode == NATIVE:
        return Verdict(True)
    of_driver = f"driver {driver_name}" if driver_name else "a device without driver"
    expected = Verdict(False, known.reason, known.remedy) if known is not None else None
    features = xdp_features(link.index)
    if features is not None and not features & _NETDEV_XDP_ACT_BASIC:
        return expected or _undeclared(link, driver_name, of_driver)
    if link.xdp_program or not attach:
        return expected or Verdict(True if features is not None else None)
    refusal = _try_native(link.index, buffers)
    if not refusal:
        return Verdict(True)
    told = f"{of_driver} refuses a native XDP program: {refusal}"
    if expected is not None:
        return Verdict(False, f"{told}; {expected.reason}", expected.remedy)
    return Verdict(False, told, drivers.advice(driver_name, link.name) or _without_native(link))


def _undeclared(link: Link, driver_name: str, of_driver: str) -> Verdict:
    """For a driver that declares no native XDP: veth and ena take their declaration back while queues do not fit."""
    tip = drivers.advice(driver_name, link.name)
    if tip:
        return Verdict(False, f"{of_driver} has native XDP, but not for this device as it is set up now", tip)
    return Verdict(False, f"{of_driver} does not implement native XDP", _without_native(link))


def _without_native(link: Link) -> str:
    if link.kind == "bond":
        return "nothing: XDP is attached to the bond's ports"
    if link.kind == "vlan":
        return "nothing: XDP is attached to its parent, where that has native XDP and leaves tags on frames"
    return "best-effort attaches in generic mode"


def _try_native(index: int, buffers: bool) -> str:
    """Attach a program that passes everything, natively, and detach it; why that was refused, or ""."""
    flags = abi.BPF_F_XDP_HAS_FRAGS if buffers else 0
    with libbpf.closing(libbpf.program_load(ProgramType.XDP, _PASS, flags)) as program:
        try:
            # A link goes with its descriptor: whatever happens to this process, the device is left as it was.
            attached = libbpf.link_create(program, index, AttachType.XDP, abi.XDP_FLAGS_DRV_MODE)
        except BpfError as e:
            return _refusal(index, program, e.errno or 0)
        with libbpf.closing(attached):
            libbpf.link_detach(attached)
    return ""


def _refusal(index: int, program: int, number: int) -> str:
    """The driver's own words, which netlink passes on and links do not; else what the error number means."""
    flags = abi.XDP_FLAGS_DRV_MODE | _XDP_FLAGS_UPDATE_IF_NOEXIST
    error, words = netlink.explained(_set_xdp(index, program, flags))
    if not error:
        # Taken this time, so the first refusal was about the moment; nothing may stay.
        netlink.explained(_set_xdp(index, -1, abi.XDP_FLAGS_DRV_MODE))
    meaning = os.strerror(number)
    return f"{words} ({meaning})" if words else meaning


def _set_xdp(index: int, program: int, flags: int) -> netlink.Request:
    xdp = netlink.attribute(_IFLA_XDP_FD, struct.pack("=i", program))
    xdp += netlink.attribute(_IFLA_XDP_FLAGS, struct.pack("=I", flags))
    header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0)
    return netlink.RTM_SETLINK, 0, header + netlink.attribute(_IFLA_XDP | _NLA_F_NESTED, xdp)


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
