"""What the load balancer has to do, written from the formats' specifications and not from the program.

Checksums come from scapy, which computes them anew, or from a plain sum (RFC 1071); the packet's slot from Cilium's
definition: Linux's jhash over source address, ports and protocol.
"""

import ipaddress
import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

M32 = 0xFFFFFFFF
DEFAULT_SEEDS = (0x71DCDA46, 0x92505688)
"""Of Cilium's default seed `JLfvgnHc2kaSUFaI`."""


# --- slot of a packet ---


def _rotate(word, bits):
    return (word << bits | word >> (32 - bits)) & M32


def _mix(a, b, c):
    for first, second, third in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & M32) ^ _rotate(c, first)
        c = (c + b) & M32
        b = ((b - a) & M32) ^ _rotate(a, second)
        a = (a + c) & M32
        c = ((c - b) & M32) ^ _rotate(b, third)
        b = (b + a) & M32
    return a, b, c


def _final(a, b, c):
    c = ((c ^ b) - _rotate(b, 14)) & M32
    a = ((a ^ c) - _rotate(c, 11)) & M32
    b = ((b ^ a) - _rotate(a, 25)) & M32
    c = ((c ^ b) - _rotate(b, 16)) & M32
    a = ((a ^ c) - _rotate(c, 4)) & M32
    b = ((b ^ a) - _rotate(a, 14)) & M32
    return ((c ^ b) - _rotate(b, 24)) & M32


def slot_hash(source, source_port, destination_port, protocol, *, seeds=DEFAULT_SEEDS):
    """Hash of a packet; the destination address takes no part. `seeds` are IPv4's and IPv6's."""
    address = ipaddress.ip_address(source)
    (ports,) = struct.unpack("<I", struct.pack(">HH", source_port, destination_port))
    words = struct.unpack(f"<{len(address.packed) // 4}I", address.packed)
    if address.version == 4:
        initial = (seeds[0] + 0xDEADBEEF + (3 << 2)) & M32
        return _final(*((word + initial) & M32 for word in (words[0], ports, protocol)))
    a, b, c = _mix(*words[:3])
    a, b, c = _mix((a + words[3]) & M32, (b + ports) & M32, (c + protocol) & M32)
    return _final((a + seeds[1]) & M32, b, c)


# --- packets ---


def fresh(packet):
    """The packet's bytes with checksums computed anew, but for a UDP checksum of 0, which stays."""
    packet = packet.copy()
    for layer in (IP, TCP, UDP):
        if layer in packet and not (layer is UDP and packet[UDP].chksum == 0):
            del packet[layer].chksum
    return bytes(packet)


def network(packet):
    """The IP header's layer."""
    return packet[IP] if IP in packet else packet[IPv6]


def transport(packet):
    """The TCP or UDP header's layer."""
    return packet[TCP] if TCP in packet else packet[UDP]


def translated(frame, *, source=None, destination=None, hops=1, mac=None):
    """The frame with other ends: each is (address, port); `mac` is (source, destination)."""
    packet = Ether(frame)
    ip, l4 = network(packet), transport(packet)
    if source:
        ip.src, l4.sport = source
    if destination:
        ip.dst, l4.dport = destination
    if ip.version == 4:
        ip.ttl -= hops
    else:
        ip.hlim -= hops
    if mac:
        packet.src, packet.dst = mac
    return fresh(packet)


def echo_reply(frame):
    """The answer to an echo request."""
    packet = Ether(frame)
    packet.src, packet.dst = packet.dst, packet.src
    ip = network(packet)
    ip.src, ip.dst = ip.dst, ip.src
    if ip.version == 4:
        ip.ttl = 64
        packet[ICMP].type = 0
        del ip.chksum, packet[ICMP].chksum
        return bytes(packet)
    ip.hlim = 64
    request = packet[ICMPv6EchoRequest]
    ip.remove_payload()
    return bytes(packet / ICMPv6EchoReply(id=request.id, seq=request.seq, data=request.data))


def icmp_error(frame, error, mtu=0):
    """The ICMP error about a frame; `error` is expired, unreachable or big."""
    packet = Ether(frame)
    ip = network(packet)
    ethernet = Ether(src=packet.dst, dst=packet.src)
    if ip.version == 4:
        kind, code = {"expired": (11, 0), "unreachable": (3, 3), "big": (3, 4)}[error]
        quote = bytes(ip)[: ip.len][:548]
        fields = {"nexthopmtu": mtu} if error == "big" else {}
        head = IP(src=ip.dst, dst=ip.src, ttl=64, tos=0xC0, flags="DF", id=0)
        message = head / ICMP(type=kind, code=code, **fields)
    else:
        quote = bytes(ip)[: ip.plen + 40][:1232]
        head = IPv6(src=ip.dst, dst=ip.src, hlim=64)
        kind = {
            "expired": ICMPv6TimeExceeded(code=0),
            "unreachable": ICMPv6DestUnreach(code=4),
            "big": ICMPv6PacketTooBig(mtu=mtu),
        }[error]
        message = head / kind
    return bytes(ethernet / message / Raw(quote[: len(quote) & ~3]))


# --- plain checks of a frame ---


def internet_sum(data):
    """0 where the checksum in `data` is right."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def network_valid(frame):
    """Whether frame holds an IP packet whose header is right."""
    ip = frame[14:]
    if frame[12:14] == b"\x08\0":
        header, total = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
        return ip[0] >> 4 == 4 and 20 <= header <= total <= len(ip) and not internet_sum(ip[:header])
    return frame[12:14] == b"\x86\xdd" and ip[0] >> 4 == 6 and 40 + int.from_bytes(ip[4:6], "big") <= len(ip)


def transport_of(frame):
    """(protocol, transport header with payload, pseudo-header) of an IP frame without extension headers."""
    ip = frame[14:]
    if ip[0] >> 4 == 4:
        header, length = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
        data = ip[header:length]
        return ip[9], data, ip[12:20] + struct.pack(">HH", ip[9], len(data))
    data = ip[40 : 40 + int.from_bytes(ip[4:6], "big")]
    return ip[6], data, ip[8:40] + struct.pack(">IHH", len(data), 0, ip[6])


def transport_valid(frame):
    """Whether the checksum over the payload is right (or UDP has none)."""
    protocol, data, pseudo = transport_of(frame)
    if protocol == 17 and data[6:8] == b"\0\0":
        return True
    return not internet_sum(data if protocol == 1 else pseudo + data)
