"""Frames of the cases; every length is a multiple of 8, which the wrapper restores."""

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bench.node import CLIENT, MACS, PORT, ROUTER_MAC, SNAT, VIP

LENGTHS = {4: 64, 6: 80}
FIRST_PORT = 1024


def l4(protocol, sport, dport, flags):
    return TCP(sport=sport, dport=dport, flags=flags) if protocol == "tcp" else UDP(sport=sport, dport=dport)


def frame(version, source, destination, transport, macs=(ROUTER_MAC, MACS["in0"])):
    """A frame of the version's length, with right checksums."""
    ip = IP(src=source, dst=destination) if version == 4 else IPv6(src=source, dst=destination)
    headers = Ether(src=macs[0], dst=macs[1]) / ip / transport
    packet = headers / Raw(bytes(LENGTHS[version] - len(headers)))
    return bytes(packet)


def request(version, protocol, flags="A", destination=None, offset=0):
    """A client's frame; `offset` tells clients of different cases apart."""
    client = f"198.{18 + offset}.0.0" if version == 4 else f"{CLIENT[6]}{offset}:0:0"
    return frame(version, client, destination or VIP[version], l4(protocol, FIRST_PORT, PORT, flags))


def datagram(device, destination=None):
    """A client's UDP frame to a device's own MAC address, where the kernel wants it; without checksum (RFC 768)."""
    transport = UDP(sport=FIRST_PORT, dport=PORT, chksum=0)
    return frame(4, "198.18.0.0", destination or VIP[4], transport, (ROUTER_MAC, MACS[device]))


def reply(forwarded, version, protocol):
    """A backend's answer to a request that the load balancer forwarded as `forwarded`."""
    packet = Ether(forwarded)
    ip = packet[IP] if version == 4 else packet[IPv6]
    transport = packet[TCP] if protocol == "tcp" else packet[UDP]
    assert ip.src == SNAT[version]
    answer = l4(protocol, transport.dport, transport.sport, "A")
    return frame(version, ip.dst, ip.src, answer, (packet.dst, packet.src))
