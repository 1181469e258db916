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
    """(protocol, transport header with payload, pseudo-header) of an IP frame."""
    ip = frame[14:]
    if ip[0] >> 4 == 4:
        header, length = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
        data = ip[header:length]
        return ip[9], data, ip[12:20] + struct.pack(">HH", ip[9], len(data))
    protocol, data = ip[6], ip[40 : 40 + int.from_bytes(ip[4:6], "big")]
    while protocol in (0, 43, 44, 60) and len(data) >= 8:
        size = 8 if protocol == 44 else 8 + data[1] * 8
        protocol, data = data[0], data[size:]
    return protocol, data, ip[8:40] + struct.pack(">IHH", len(data), 0, protocol)


def is_following_fragment(frame):
    """Whether an IP frame holds a fragment that is not its datagram's first: it has no transport header."""
    ip = frame[14:]
    if ip[0] >> 4 == 4:
        return bool(int.from_bytes(ip[6:8], "big") & 0x1FFF)
    protocol, data = ip[6], ip[40 : 40 + int.from_bytes(ip[4:6], "big")]
    while protocol in (0, 43, 44, 60) and len(data) >= 8:
        if protocol == 44 and int.from_bytes(data[2:4], "big") & 0xFFF8:
            return True
        size = 8 if protocol == 44 else 8 + data[1] * 8
        protocol, data = data[0], data[size:]
    return False


def transport_valid(frame):
    """Whether the checksum over the payload is right (or UDP has none)."""
    protocol, data, pseudo = transport_of(frame)
    if protocol == 17 and data[6:8] == b"\0\0":
        return True
    return not internet_sum(data if protocol == 1 else pseudo + data)


# --- direct server return ---


def internet_checksum(header):
    """The header with its checksum, which is 0 in `header`, at the place where IPv4 has it."""
    return header[:10] + struct.pack(">H", internet_sum(header)) + header[12:]


def packed(address):
    return ipaddress.ip_address(address).packed


def tells(frame):
    """Whether the dispatch says which service the packet was sent to: in UDP always, in TCP where it begins."""
    packet = Ether(frame)
    return TCP not in packet or packet[TCP].flags & 0x12 == 0x02


def with_option(frame, frontend):
    """The frame with the option that names `frontend`, (address, port), behind the fixed header."""
    address, port = packed(frontend[0]), frontend[1]
    ethernet, ip = frame[:14], frame[14:]
    if ip[0] >> 4 == 4:
        option = struct.pack(">BBH", 0x9A, 8, port) + address
        length = int.from_bytes(ip[2:4], "big") + 8
        head = bytes([ip[0] + 2, ip[1]]) + struct.pack(">H", length) + ip[4:10] + b"\0\0" + ip[12:20]
        rest = ip[20 : (ip[0] & 15) * 4]
        return ethernet + internet_checksum(head + option + rest) + ip[20 + len(rest) :]
    option = bytes([ip[6], 2, 0x1B, 0x14]) + address + struct.pack(">HH", port, 0)
    length = struct.pack(">H", int.from_bytes(ip[4:6], "big") + 24)
    return ethernet + ip[:4] + length + b"\x3c" + ip[7:40] + option + ip[40:]


def traffic_class(ip):
    return ip[1] if ip[0] >> 4 == 4 else (ip[0] << 4 | ip[1] >> 4) & 0xFF


def outer_header(source, destination, protocol, length, inner):
    """Header of a packet around `inner` and more, `length` bytes: Don't Fragment and id 0 (RFC 6864), 64 hops; the
    traffic class is the packet's own, ECN too (RFC 6040).
    """
    kind = traffic_class(inner)
    if ipaddress.ip_address(source).version == 6:
        return struct.pack(">IHBB", 6 << 28 | kind << 20, length, protocol, 64) + packed(source) + packed(destination)
    head = struct.pack(">BBHHHBBH", 0x45, kind, 20 + length, 0, 0x4000, 64, protocol, 0)
    return internet_checksum(head + packed(source) + packed(destination))


def ip_length(frame):
    """Bytes of the IP packet in a frame, without Ethernet's padding."""
    ip = frame[14:]
    return int.from_bytes(ip[2:4], "big") if ip[0] >> 4 == 4 else 40 + int.from_bytes(ip[4:6], "big")


def wrapped(frame, head, protocols, source, destination):
    """The frame's packet in an outer one, behind `head`; `protocols` are those that say so of IPv4 and of IPv6."""
    inner = frame[14:]
    outer = outer_header(source, destination, protocols[inner[0] >> 4], len(head) + ip_length(frame), inner)
    ethertype = b"\x08\0" if outer[0] >> 4 == 4 else b"\x86\xdd"
    return frame[:12] + ethertype + outer + head + inner


def in_ip(frame, source, destination):
    """RFC 2003, 2473, 4213."""
    return wrapped(frame, b"", {4: 4, 6: 41}, source, destination)


def geneve_option(frontend):
    data = packed(frontend[0]) + struct.pack(">HH", frontend[1], 0)
    return struct.pack(">HBB", 0x014B, 0x81, len(data) // 4) + data


def in_geneve(frame, source, destination, hashed, frontend=None):
    """RFC 8926; with the option that names `frontend`. The UDP checksum is 0 (RFC 6935), the source port the hash's."""
    option = geneve_option(frontend) if frontend else b""
    critical = 0x40 if option else 0
    geneve = struct.pack(">BBHI", len(option) // 4, critical, 0x6558, 2 << 8) + option
    ethernet = bytes(12) + frame[12:14]
    port = ((hashed >> 16) ^ (hashed & 0xFFFF)) | 0x8000
    inner = geneve + ethernet
    udp = struct.pack(">HHHH", port, 6081, 8 + len(inner) + ip_length(frame), 0)
    return wrapped(frame, udp + inner, {4: 17, 6: 17}, source, destination)


OUTER = {4: 20, 6: 40}
GENEVE_AROUND = 8 + 8 + 14
"""UDP, Geneve without options, Ethernet."""


def overhead(dispatch, version, outer, told):
    """Bytes that a packet of a family grows by on its way."""
    if dispatch == "opt":
        return {4: 8, 6: 24}[version] * told
    if dispatch == "ipip":
        return OUTER[outer]
    return OUTER[outer] + GENEVE_AROUND + {4: 12, 6: 24}[version] * told


def hop(frame, mac=None):
    """The frame after a router."""
    return translated(frame, mac=mac)


def flow_hash(frame):
    packet = Ether(frame)
    ip, l4 = network(packet), transport(packet)
    return slot_hash(ip.src, l4.sport, l4.dport, 6 if TCP in packet else 17)


def dispatched(frame, dispatch, frontend, backend, *, mac, source, told=None, hashed=None):
    """A client's frame on its way to `backend`, (address, port); `source` is that of an outer packet."""
    told = tells(frame) if told is None else told
    if dispatch == "ipip":
        return in_ip(hop(frame, mac), source, backend[0])
    inner = translated(frame, destination=backend, mac=mac)
    if dispatch == "opt":
        return with_option(inner, frontend) if told else inner
    return in_geneve(inner, source, backend[0], hashed or flow_hash(frame), frontend if told else None)


# --- fragments ---


def fragments(frame, size, number=0x1234):
    """The frame's packet in fragments of at most `size` bytes of payload, a multiple of 8."""
    ip = frame[14 : 14 + ip_length(frame)]
    header = (ip[0] & 15) * 4 if ip[0] >> 4 == 4 else 40
    body = ip[header:]
    made = []
    for start in range(0, len(body), size):
        part, more = body[start : start + size], start + size < len(body)
        if ip[0] >> 4 == 4:
            place = struct.pack(">HH", number, start // 8 | more << 13)
            head = ip[:2] + struct.pack(">H", header + len(part)) + place + ip[8:10] + b"\0\0" + ip[12:header]
            head = internet_checksum(head)
        else:
            place = struct.pack(">BBHI", ip[6], 0, start | more, number)
            head = ip[:4] + struct.pack(">H", 8 + len(part)) + b"\x2c" + ip[7:40] + place
        made.append(frame[:14] + head + part)
    return made
