"""Frames for `datapath trace`: built from a few fields, and taken apart into named ones."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Any, Optional

from datapath.state.model import IPAddress, Protocol

TCP_FLAGS = {"fin": 0x01, "syn": 0x02, "rst": 0x04, "psh": 0x08, "ack": 0x10, "urg": 0x20, "ece": 0x40, "cwr": 0x80}
"""RFC 9293, 3.1."""
LARGEST = 3400
"""Bytes of an IP packet that the kernel runs a program on, whose buffer is a page of 4 KiB."""

_LETTERS = {**{name[0]: bit for name, bit in TCP_FLAGS.items()}, ".": TCP_FLAGS["ack"]}
_ETHERNET = 14
_IP4, _IP6 = 0x0800, 0x86DD
_HEADER = {4: 20, 6: 40}
_TRANSPORT = {Protocol.TCP: 20, Protocol.UDP: 8}
_ICMP = {4: 1, 6: 58}
_DONT_FRAGMENT = 0x4000
_ICMP_TEXTS = {
    (4, 0, 0): "echo reply",
    (4, 3, 3): "port unreachable",
    (4, 3, 4): "fragmentation needed",
    (4, 11, 0): "time exceeded",
    (6, 1, 4): "port unreachable",
    (6, 2, 0): "packet too big",
    (6, 3, 0): "time exceeded",
    (6, 129, 0): "echo reply",
}
_TOO_BIG = frozenset({(4, 3, 4), (6, 2, 0)})
"""Those that say the next hop's MTU."""


@dataclass(frozen=True)
class Packet:
    """What a packet to trace is made from."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    protocol: Protocol
    tcp_flags: int = TCP_FLAGS["syn"]
    ttl: int = 64
    length: Optional[int] = None
    """Bytes of the IP packet; None is no payload."""


def parse_flags(text: str) -> int:
    """`S`, `SA`, `FA` as tcpdump writes flags (`.` is ACK too), or names: `syn,ack`. Raises ValueError."""
    words = text.lower().replace("+", ",").split(",")
    if all(word in TCP_FLAGS for word in words):
        return sum({TCP_FLAGS[word] for word in words})
    if not text or not all(letter in _LETTERS for letter in text.lower()):
        raise ValueError(text)
    return sum({_LETTERS[letter] for letter in text.lower()})


def flag_names(flags: int) -> str:
    """`SYN ACK`; `none` where none is set."""
    return " ".join(name.upper() for name, bit in TCP_FLAGS.items() if flags & bit) or "none"


def smallest(version: int, protocol: Protocol) -> int:
    """Bytes of an IP packet without payload."""
    return _HEADER[version] + _TRANSPORT[protocol]


def build(packet: Packet, source_mac: str, destination_mac: str) -> bytes:
    """The frame, its payload zeros, its checksums right; IPv4's may not be fragmented, as hosts send them."""
    version = packet.source.version
    length = packet.length or smallest(version, packet.protocol)
    payload = bytes(length - smallest(version, packet.protocol))
    ports = struct.pack(">HH", packet.source_port, packet.destination_port)
    if packet.protocol is Protocol.TCP:
        transport = ports + struct.pack(">IIBBHHH", 1, 0, 5 << 4, packet.tcp_flags, 0xFFFF, 0, 0) + payload
        place = 16
    else:
        transport = ports + struct.pack(">HH", 8 + len(payload), 0) + payload
        place = 6
    header = _network(packet, length)
    total = _checksum(_pseudo_header(header, len(transport)) + transport)
    # UDP: 0 says that there is none, so a sum of 0 is sent as its other form (RFC 768).
    transport = transport[:place] + struct.pack(">H", total or 0xFFFF) + transport[place + 2 :]
    macs = bytes.fromhex((destination_mac + source_mac).replace(":", ""))
    return macs + struct.pack(">H", _IP4 if version == 4 else _IP6) + header + transport


def _network(packet: Packet, length: int) -> bytes:
    addresses = packet.source.packed + packet.destination.packed
    number = packet.protocol.value
    if packet.source.version == 6:
        return struct.pack(">IHBB", 6 << 28, length - 40, number, packet.ttl) + addresses
    header = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, _DONT_FRAGMENT, packet.ttl, number, 0) + addresses
    return header[:10] + struct.pack(">H", _checksum(header)) + header[12:]


def _pseudo_header(header: bytes, length: int) -> bytes:
    """What a transport checksum covers besides the segment (RFC 9293, 3.1; RFC 8200, 8.1)."""
    if header[0] >> 4 == 6:
        return header[8:40] + struct.pack(">II", length, header[6])
    return header[12:20] + struct.pack(">BBH", 0, header[9], length)


def _checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that holds its own right checksum."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def decode(frame: bytes) -> dict[str, Any]:
    """Fields of a frame that `build` made, or of what the datapath made of it."""
    fields: dict[str, Any] = {
        "source_mac": frame[6:12].hex(":"),
        "destination_mac": frame[:6].hex(":"),
    }
    version = frame[_ETHERNET] >> 4
    size = _HEADER[version]
    header = frame[_ETHERNET : _ETHERNET + size]
    if version == 4:
        (length,) = struct.unpack_from(">H", header, 2)
        ttl, protocol = header[8], header[9]
        addresses = header[12:16], header[16:20]
    else:
        length = 40 + struct.unpack_from(">H", header, 4)[0]
        protocol, ttl = header[6], header[7]
        addresses = header[8:24], header[24:40]
    transport = frame[_ETHERNET + size : _ETHERNET + length]
    source, destination = (str(ipaddress.ip_address(each)) for each in addresses)
    fields.update(source=source, destination=destination, ttl=ttl, length=length)
    fields.update(_transport(version, protocol, transport))
    right = _checksums_right(header, transport, protocol)
    return {**fields, "checksums": "right" if right else "wrong"}


def _transport(version: int, protocol: int, data: bytes) -> dict[str, Any]:
    if protocol == _ICMP[version]:
        text = _ICMP_TEXTS.get((version, data[0], data[1]), f"type {data[0]} code {data[1]}")
        if (version, data[0], data[1]) in _TOO_BIG:
            text += f", MTU {struct.unpack_from('>I', data, 4)[0]}"
        return {"protocol": "ICMP" if version == 4 else "ICMPv6", "message": text}
    source, destination = struct.unpack_from(">HH", data)
    ports = {"protocol": Protocol(protocol).name, "source_port": source, "destination_port": destination}
    return {**ports, "tcp_flags": flag_names(data[13])} if protocol == Protocol.TCP.value else ports


def _checksums_right(header: bytes, transport: bytes, protocol: int) -> bool:
    if header[0] >> 4 == 4 and _checksum(header):
        return False
    # Of the protocols here only IPv4's ICMP has no pseudo-header.
    covered = transport if protocol == _ICMP[4] else _pseudo_header(header, len(transport)) + transport
    return _checksum(covered) == 0
