"""Next hops and their neighbours.

XDP can look a route up but cannot start neighbour resolution, so every next hop must be resolved beforehand and stay
so. Kernels from 5.16 keep an entry resolved by themselves (NTF_EXT_MANAGED, commit 7482e3841d52); elsewhere `refresh`
has the kernel resolve it again, and the agent calls that every `arping-refresh-period`. Our entries carry a protocol
number of their own, so nobody else's are ever touched.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datapath.kernel import netlink
from datapath.state.facts import NextHop
from datapath.state.kernel_state import Neighbour
from datapath.state.model import IPAddress

OUR_PROTOCOL = 0xDA
"""NDA_PROTOCOL of our entries; the numbers above 192 are nobody's (linux/rtnetlink.h)."""

_NDMSG = struct.Struct("=BBHiHBB")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDA_DST, _NDA_LLADDR, _NDA_CACHEINFO, _NDA_PROTOCOL, _NDA_FLAGS_EXT = 1, 2, 3, 12, 15
_USER_HZ = os.sysconf("SC_CLK_TCK")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA = 1, 4, 5, 8, 18
_RTAX_MTU = 2
_RTN_UNICAST = 1
_NUD_NONE = 0
_UNUSABLE = 0x01 | 0x20
"""NUD_INCOMPLETE, NUD_FAILED."""
_FIXED = 0x40 | 0x80
"""NUD_NOARP, NUD_PERMANENT."""
_NTF_USE, _NTF_EXT_LEARNED, _NTF_EXT_MANAGED = 0x01, 0x10, 0x01


def next_hops(targets: Iterable[IPAddress]) -> dict[IPAddress, NextHop]:
    """Neighbour that frames to each target go to, as the kernel routes now; without route: missing.

    A target that is this node's own address has no next hop either: XDP cannot deliver to it.
    """
    unique = sorted(set(targets), key=lambda address: (address.version, address))
    answers = netlink.exchange([_route_request(address) for address in unique])
    names = dict(socket.if_nameindex())
    found = {}
    for address, (error, body) in zip(unique, answers):
        if error == 0 and body and body[7] == _RTN_UNICAST:
            attributes = netlink.attributes(body[_RTMSG.size :])
            device = names.get(struct.unpack("=I", attributes[_RTA_OIF])[0])
            if device is not None:
                found[address] = NextHop(device, _gateway(attributes, address), _mtu(attributes))
    return found


def _mtu(attributes: dict[int, bytes]) -> int:
    """The route's own MTU, 0 where it has none."""
    metric = netlink.attributes(attributes.get(_RTA_METRICS, b"")).get(_RTAX_MTU)
    return struct.unpack("=I", metric)[0] if metric else 0


def _route_request(address: IPAddress) -> netlink.Request:
    header = _RTMSG.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return netlink.RTM_GETROUTE, 0, header + netlink.attribute(_RTA_DST, address.packed)


def _gateway(attributes: dict[int, bytes], target: IPAddress) -> IPAddress:
    if _RTA_GATEWAY in attributes:
        return ipaddress.ip_address(attributes[_RTA_GATEWAY])
    if _RTA_VIA in attributes:
        return ipaddress.ip_address(attributes[_RTA_VIA][2:])
    return target


def _family(address: IPAddress) -> int:
    return int(socket.AF_INET6 if address.version == 6 else socket.AF_INET)


@functools.cache
def managed_supported() -> bool:
    """Whether the kernel knows NTF_EXT_MANAGED.

    Asked with a device that cannot exist: a kernel that validates NDA_FLAGS_EXT refuses a reserved flag before
    it looks for the device, and refuses the device where the flag is known.
    """
    probe = ipaddress.IPv4Address("192.0.2.1")
    reserved, managed = (
        netlink.exchange([_request(netlink.RTM_NEWNEIGH, 0x7FFFFFFF, probe, extended=flag)])[0][0]
        for flag in (1 << 31, _NTF_EXT_MANAGED)
    )
    return reserved == errno.EINVAL and managed == errno.ENODEV


def _request(kind: int, index: int, address: IPAddress, flags: int = 0, extended: int = 0) -> netlink.Request:
    body = _NDMSG.pack(_family(address), 0, 0, index, _NUD_NONE, _NTF_EXT_LEARNED | flags, 0)
    body += netlink.attribute(_NDA_DST, address.packed)
    if kind == netlink.RTM_NEWNEIGH:
        body += netlink.attribute(_NDA_PROTOCOL, bytes([OUR_PROTOCOL]))
    if extended:
        body += netlink.attribute(_NDA_FLAGS_EXT, struct.pack("=I", extended))
    how = netlink.NLM_F_ACK
    if kind == netlink.RTM_NEWNEIGH:
        how |= netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    return kind, how, body


def _indices(neighbours: Sequence[Neighbour]) -> dict[str, int]:
    indices = {name: index for index, name in socket.if_nameindex()}
    for neighbour in neighbours:
        if neighbour.device not in indices:
            raise OSError(errno.ENODEV, f"neighbour {neighbour.address}: there is no device {neighbour.device}")
    return indices


def add(neighbours: Sequence[Neighbour]) -> None:
    """Have the kernel resolve these and (where it can) keep them resolved; an existing entry becomes ours."""
    flags, extended = (0, _NTF_EXT_MANAGED) if managed_supported() else (_NTF_USE, 0)
    indices = _indices(neighbours)
    requests = [_request(netlink.RTM_NEWNEIGH, indices[n.device], n.address, flags, extended) for n in neighbours]
    for neighbour, (error, _) in zip(neighbours, netlink.exchange(requests)):
        if error:
            raise OSError(error, f"neighbour {neighbour.address} on {neighbour.device}: {os.strerror(error)}")


def remove(neighbours: Sequence[Neighbour]) -> None:
    """Remove entries; those that are gone (with their device, say) are as good as removed."""
    indices = {name: index for index, name in socket.if_nameindex()}
    present = [n for n in neighbours if n.device in indices]
    answers = netlink.exchange([_request(netlink.RTM_DELNEIGH, indices[n.device], n.address) for n in present])
    for neighbour, (error, _) in zip(present, answers):
        if error not in (0, errno.ENOENT):
            raise OSError(error, f"neighbour {neighbour.address} on {neighbour.device}: {os.strerror(error)}")


def read() -> frozenset[Neighbour]:
    """The entries that are ours, resolved or not."""
    names = dict(socket.if_nameindex())
    found = set()
    for body in netlink.dump(netlink.RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0, 0, 0)):
        attributes = netlink.attributes(body[_NDMSG.size :])
        index = _NDMSG.unpack_from(body)[3]
        if attributes.get(_NDA_PROTOCOL) == bytes([OUR_PROTOCOL]) and index in names:
            found.add(Neighbour(names[index], ipaddress.ip_address(attributes[_NDA_DST])))
    return frozenset(found)


@dataclass(frozen=True)
class Known:
    """What the kernel believes of a neighbour."""

    mac: str
    age: float
    """Seconds since it was last heard from it or about it."""


def known() -> dict[NextHop, Known]:
    """Those of our entries that have a MAC address, and not one for good."""
    names = dict(socket.if_nameindex())
    found = {}
    for body in netlink.dump(netlink.RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0, 0, 0)):
        attributes = netlink.attributes(body[_NDMSG.size :])
        _, _, _, index, state, _, _ = _NDMSG.unpack_from(body)
        mac = attributes.get(_NDA_LLADDR, b"")
        if attributes.get(_NDA_PROTOCOL) != bytes([OUR_PROTOCOL]) or len(mac) != 6 or state & (_UNUSABLE | _FIXED):
            continue
        if index in names and _NDA_CACHEINFO in attributes:
            (confirmed,) = struct.unpack_from("=I", attributes[_NDA_CACHEINFO])
            hop = NextHop(names[index], ipaddress.ip_address(attributes[_NDA_DST]))
            found[hop] = Known(mac.hex(":"), confirmed / _USER_HZ)
    return found


def macs() -> dict[NextHop, str]:
    """MAC address of every resolved neighbour, whoever's entry it is."""
    names = dict(socket.if_nameindex())
    found = {}
    for body in netlink.dump(netlink.RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0, 0, 0)):
        family, _, _, index, state, _, _ = _NDMSG.unpack_from(body)
        attributes = netlink.attributes(body[_NDMSG.size :])
        mac = attributes.get(_NDA_LLADDR, b"")
        if family in (socket.AF_INET, socket.AF_INET6) and len(mac) == 6 and index in names and not state & _UNUSABLE:
            found[NextHop(names[index], ipaddress.ip_address(attributes[_NDA_DST]))] = mac.hex(":")
    return found


def refresh() -> None:
    """Have the kernel confirm our entries again; nothing to do where it does so by itself."""
    if not managed_supported():
        add(sorted(read(), key=lambda n: (n.device, n.address.version, n.address)))
