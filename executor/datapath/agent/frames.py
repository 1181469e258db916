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
_VLAN, _VLAN_ID = (b"\x81\x00", b"\x88\xa8"), 0x0FFF
_HEADER = {4: 20, 6: 40}
_TRANSPORT = {Protocol.TCP: 20, Protocol.UDP: 8}
_ICMP = {4: 1, 6: 58}
_DONT_FRAGMENT = 0x4000
_OPTION4, _OPTION6 = b"\x9a\x08", b"\x1b\x14"
"""Type and length of the options that name a service."""
_DESTINATION_OPTIONS = 60
_IN_IP = (4, 41)
_GENEVE_PORT = struct.pack(">H", 6081)
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


def build(packet: Packet, source_mac: str, destination_mac: str, tags: bytes = b"") -> bytes:
    """The frame, its payload zeros, its checksums right; IPv4's may not be fragmented, as hosts send them.

    `tags` are those of VLANs, as they stand behind the MAC addresses.
    """
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
    return macs + tags + struct.pack(">H", _IP4 if version == 4 else _IP6) + header + transport


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
    """Fields of a frame that `build` made, or of what the datapath made of it.

    `vlan` are the ids of its tags, outermost first; `to` is the outermost destination. Of a tunnelled packet the other
    fields are the inner packet's, and `tunnel` says what is around it; `dsr` is the service that an option names.
    """
    fields: dict[str, Any] = {"source_mac": frame[6:12].hex(":"), "destination_mac": frame[:6].hex(":")}
    vlans, start = _tags(frame)
    if vlans:
        fields["vlan"] = vlans
    packet = _network_fields(frame[start:])
    fields["to"] = packet["destination"]
    inner, tunnel = _inside(packet)
    right = packet["right"]
    if inner is not None:
        packet = inner
        right = right and packet["right"]
        fields["tunnel"] = tunnel
    header, transport, protocol = packet["header"], packet["payload"], packet["protocol"]
    names = ("source", "destination", "ttl", "length", "dsr")
    fields.update({name: packet[name] for name in names if packet.get(name) is not None})
    if inner is not None and inner.get("told"):
        fields["dsr"] = inner["told"]
    fields.update(_transport(header[0] >> 4, protocol, transport))
    right = right and _transport_right(header, transport, protocol)
    return {**fields, "checksums": "right" if right else "wrong"}


def _tags(frame: bytes) -> tuple[list[int], int]:
    """Ids of VLANs, and where the packet begins."""
    vlans, start = list[int](), _ETHERNET
    while frame[start - 2 : start] in _VLAN:
        vlans.append(int.from_bytes(frame[start : start + 2], "big") & _VLAN_ID)
        start += 4
    return vlans, start


def _network_fields(data: bytes) -> dict[str, Any]:
    """An IP packet: header, what it says, and what follows the options that name a service."""
    version = data[0] >> 4
    if version == 4:
        size = (data[0] & 15) * 4
        (length,) = struct.unpack_from(">H", data, 2)
        ttl, protocol = data[8], data[9]
        addresses = data[12:16], data[16:20]
        dsr = _named(data[24:28], data[22:24]) if size >= 28 and data[20:22] == _OPTION4 else None
    else:
        size, dsr = _HEADER[6], None
        length = size + struct.unpack_from(">H", data, 4)[0]
        protocol, ttl = data[6], data[7]
        addresses = data[8:24], data[24:40]
        if protocol == _DESTINATION_OPTIONS and data[42:44] == _OPTION6:
            dsr, protocol, size = _named(data[44:60], data[60:62]), data[40], size + 24
    source, destination = (str(ipaddress.ip_address(each)) for each in addresses)
    header = data[: _HEADER[6]] if version == 6 else data[:size]
    return {
        "header": header,
        "payload": data[size:length],
        "protocol": protocol,
        "source": source,
        "destination": destination,
        "ttl": ttl,
        "length": length,
        "dsr": dsr,
        "right": version == 6 or _checksum(header) == 0,
    }


def _inside(packet: dict[str, Any]) -> tuple[Optional[dict[str, Any]], str]:
    """The packet in a tunnel and the tunnel in words; (None, "") where there is none."""
    ends, payload = f"{packet['source']} > {packet['destination']}", packet["payload"]
    if packet["protocol"] in _IN_IP:
        return _network_fields(payload), f"IP in IP, {ends}"
    if packet["protocol"] != Protocol.UDP.value or payload[2:4] != _GENEVE_PORT:
        return None, ""
    options = (payload[8] & 0x3F) * 4
    inner = _network_fields(payload[16 + options + _ETHERNET :])
    if options:
        address = payload[20 : 16 + options - 4]
        inner["told"] = _named(address, payload[16 + options - 4 : 16 + options - 2])
    return inner, f"Geneve, {ends}"


def _named(address: bytes, port: bytes) -> str:
    """A service as an option names it."""
    told = ipaddress.ip_address(address)
    host = f"[{told}]" if told.version == 6 else str(told)
    return f"{host}:{int.from_bytes(port, 'big')}"


def _transport(version: int, protocol: int, data: bytes) -> dict[str, Any]:
    if protocol == _ICMP[version]:
        text = _ICMP_TEXTS.get((version, data[0], data[1]), f"type {data[0]} code {data[1]}")
        if (version, data[0], data[1]) in _TOO_BIG:
            text += f", MTU {struct.unpack_from('>I', data, 4)[0]}"
        return {"protocol": "ICMP" if version == 4 else "ICMPv6", "message": text}
    source, destination = struct.unpack_from(">HH", data)
    ports = {"protocol": Protocol(protocol).name, "source_port": source, "destination_port": destination}
    return {**ports, "tcp_flags": flag_names(data[13])} if protocol == Protocol.TCP.value else ports


def _transport_right(header: bytes, transport: bytes, protocol: int) -> bool:
    # Of the protocols here only IPv4's ICMP has no pseudo-header, and only UDP may have no checksum.
    if protocol == Protocol.UDP.value and transport[6:8] == bytes(2):
        return True
    if protocol == _ICMP[4]:
        return _checksum(transport) == 0
    if header[0] >> 4 == 6:
        pseudo = header[8:40] + struct.pack(">II", len(transport), protocol)
    else:
        pseudo = header[12:20] + struct.pack(">BBH", 0, protocol, len(transport))
    return _checksum(pseudo + transport) == 0
