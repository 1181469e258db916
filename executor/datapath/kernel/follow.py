"""Following next hops whose MAC address moves without a word.

A host that announces its new address (gratuitous ARP, unsolicited neighbour advertisement), or says anything at all,
is followed by the kernel at once. One that moves silently is not: the kernel believes what it knows for half a minute
(`base_reachable_time_ms`) and then takes ten seconds more to doubt, ask, and ask everybody. So next hops are asked
beforehand, each at the address that it is known by, and by broadcast or multicast where it does not answer there. The
answers go to the kernel as to any question of its own, which is all that is done about them: nothing here writes
neighbours, and a host that is slow to answer loses nothing.

What that costs is bounded for the node, not for each next hop: `RATE` questions a second, below the 15 a second at
which switches that inspect ARP shut a port by default. The few gateways that most load balancers have are asked every
`INTERVAL` seconds, so that they are followed within a second; N next hops every N / RATE seconds.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Optional

from datapath.kernel import netlink
from datapath.kernel.neighbours import Known
from datapath.state.facts import NextHop
from datapath.state.model import IPAddress

TICK = 0.2
"""Seconds between two looks."""
INTERVAL = 0.2
"""A next hop that was heard less than these seconds ago is not asked."""
RATE = 10
"""Questions a second."""
_BURST = 5
_PATIENCE = 3
"""Unanswered questions after which a next hop waits behind all others."""
LONGEST = 5.0
"""Seconds between two questions to a next hop that never answers."""

_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ETHERNET, _ETH_P_IP, _ETH_P_ARP = 1, 1, 0x0800, 0x0806
_BROADCAST = b"\xff" * 6
_ICMP6_FILTER = 1
_SOLICITATION = struct.Struct("!BBHI16sBB6s")
_NEIGHBOUR_SOLICITATION, _SOURCE_ADDRESS = 135, 1
_ND_HOPS = 255
"""RFC 4861: anything else was forwarded and is not heeded."""
_IFINFOMSG, _IFADDRMSG = struct.Struct("=BxHiII"), struct.Struct("=BBBBI")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_EXT_MASK, _IFA_ADDRESS, _IFA_LOCAL = 1, 3, 29, 1, 2
_RTEXT_FILTER_SKIP_STATS = 8


@dataclass(frozen=True)
class Question:
    """Who is asked where it is."""

    hop: NextHop
    mac: Optional[str]
    """Asked there alone; None: everybody is asked."""


@dataclass(frozen=True)
class _Asked:
    when: float
    times: int
    """Questions since it was last heard."""

    @property
    def again(self) -> float:
        """When to ask again; a little early, so that the tick that comes then is not missed."""
        pause: float = min(INTERVAL * 2 ** min(self.times - 1, 10), LONGEST)
        return self.when + pause - TICK / 4


class Follower:
    """Decides whom to ask; remembers nothing but what it asked."""

    def __init__(self) -> None:
        self._asked: dict[NextHop, _Asked] = {}
        self._allowed = 0.0
        self._before: Optional[float] = None

    def due(self, known: Mapping[NextHop, Known], now: float) -> list[Question]:
        """The questions of this moment, to those first that were not heard for longest."""
        self._refill(now)
        self._asked = {hop: asked for hop, asked in self._asked.items() if hop in known}
        questions = []
        for hop, entry in sorted(known.items(), key=lambda item: (self._given_up(item[0]), -item[1].age)):
            if self._allowed < 1:
                break
            asked = self._asked.get(hop)
            # It had been silent for an interval when it was asked, so half of one allows for the kernel's coarse clock.
            if asked is not None and now - entry.age > asked.when - INTERVAL / 2:
                asked = None
            if entry.age < INTERVAL or (asked is not None and now < asked.again):
                continue
            self._allowed -= 1
            self._asked[hop] = _Asked(now, asked.times + 1 if asked else 1)
            questions.append(Question(hop, None if asked else entry.mac))
        return questions

    def _given_up(self, hop: NextHop) -> bool:
        """Whether others come first: the dead must not take all questions."""
        return hop in self._asked and self._asked[hop].times > _PATIENCE

    def _refill(self, now: float) -> None:
        passed = TICK if self._before is None else now - self._before
        self._allowed = min(self._allowed + RATE * passed, _BURST)
        self._before = now


@dataclass(frozen=True)
class _Own:
    """A device of this node: who asks."""

    name: str
    index: int
    mac: bytes
    addresses: list[ipaddress.IPv4Interface]


class Asker:
    """Sends questions. Holds its sockets: closing one of them makes the kernel wait for all CPUs."""

    def __init__(self) -> None:
        """Raises PermissionError without CAP_NET_RAW."""
        with ExitStack() as stack:
            self._arp = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
            self._icmp6 = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
            for option in (socket.IPV6_UNICAST_HOPS, socket.IPV6_MULTICAST_HOPS):
                self._icmp6.setsockopt(socket.IPPROTO_IPV6, option, _ND_HOPS)
            # The kernel reads the answers; nothing is to pile up here.
            self._icmp6.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, b"\xff" * 32)
            self._sockets = stack.pop_all()

    def close(self) -> None:
        """Close the sockets."""
        self._sockets.close()

    def ask(self, questions: Sequence[Question]) -> None:
        """Send the questions; one that cannot be sent (its device is going away, say) is asked again later."""
        own = _own() if questions else {}
        for question in questions:
            device = own.get(question.hop.device)
            if device is not None:
                with suppress(OSError):
                    (self._ask4 if question.hop.address.version == 4 else self._ask6)(question, device)

    def _ask4(self, question: Question, device: _Own) -> None:
        source = _source(question.hop.address, device.addresses)
        if source is None:
            return
        target = question.hop.address.packed
        request = _ARP.pack(_ETHERNET, _ETH_P_IP, 6, 4, _ARP_REQUEST, device.mac, source.packed, bytes(6), target)
        to = bytes.fromhex(question.mac.replace(":", "")) if question.mac else _BROADCAST
        self._arp.sendto(request, (device.name, _ETH_P_ARP, 0, 0, to))

    def _ask6(self, question: Question, device: _Own) -> None:
        target = question.hop.address
        # The kernel fills the checksum in.
        message = _SOLICITATION.pack(_NEIGHBOUR_SOLICITATION, 0, 0, 0, target.packed, _SOURCE_ADDRESS, 1, device.mac)
        to = target if question.mac else solicited_node(target)
        scope = device.index if to.is_link_local or to.is_multicast else 0
        self._icmp6.sendto(message, (str(to), 0, 0, scope))


def _own() -> dict[str, _Own]:
    """Ethernet devices by name. Not by pyroute2, which takes longer than all the rest."""
    filter_stats = netlink.attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    found = {}
    for body in netlink.dump(netlink.RTM_GETLINK, bytes(_IFINFOMSG.size) + filter_stats):
        attributes = netlink.attributes(body[_IFINFOMSG.size :])
        index, name = _IFINFOMSG.unpack_from(body)[2], attributes[_IFLA_IFNAME].rstrip(b"\0").decode()
        if len(attributes.get(_IFLA_ADDRESS, b"")) == len(_BROADCAST):
            found[index] = _Own(name, index, attributes[_IFLA_ADDRESS], [])
    for body in netlink.dump(netlink.RTM_GETADDR, bytes((socket.AF_INET,)) + bytes(_IFADDRMSG.size - 1)):
        family, length, _, _, index = _IFADDRMSG.unpack_from(body)
        attributes = netlink.attributes(body[_IFADDRMSG.size :])
        address = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
        if family == socket.AF_INET and address and index in found:
            found[index].addresses.append(ipaddress.IPv4Interface((address, length)))
    return {device.name: device for device in found.values()}


def _source(target: IPAddress, own: Sequence[ipaddress.IPv4Interface]) -> Optional[IPAddress]:
    """Our address on the target's subnet, else any."""
    matching = [each for each in own if target in each.network]
    return next((each.ip for each in (*matching, *own)), None)


def solicited_node(target: IPAddress) -> IPAddress:
    """The multicast address that the holder of `target` listens to (RFC 4291, 2.7.1)."""
    return ipaddress.IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + target.packed[13:])
