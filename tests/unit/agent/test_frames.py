"""Frames to trace, judged by scapy."""

import ipaddress

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from datapath.agent import frames
from datapath.agent.frames import Packet
from datapath.state.model import Protocol

SOURCE_MAC, DESTINATION_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
ENDS = {4: ("198.51.100.2", "192.0.2.10"), 6: ("2001:db8:1::2", "2001:db8::10")}
EACH = pytest.mark.parametrize(
    ("version", "protocol"), [(4, Protocol.TCP), (4, Protocol.UDP), (6, Protocol.TCP), (6, Protocol.UDP)]
)


def packet(version, protocol, sport=40000, **fields):
    source, destination = (ipaddress.ip_address(each) for each in ENDS[version])
    return Packet(source, sport, destination, 80, protocol, **fields)


@EACH
@pytest.mark.parametrize("length", [None, 61, 100, 1500])
def test_built_frames_are_what_scapy_builds(version, protocol, length):
    frame = frames.build(packet(version, protocol, ttl=9, length=length), SOURCE_MAC, DESTINATION_MAC)
    parsed = Ether(frame)
    network, transport = parsed[IP if version == 4 else IPv6], parsed[TCP if protocol is Protocol.TCP else UDP]
    assert (parsed.src, parsed.dst) == (SOURCE_MAC, DESTINATION_MAC)
    assert (network.src, network.dst) == ENDS[version]
    assert (network.ttl if version == 4 else network.hlim) == 9
    assert (transport.sport, transport.dport) == (40000, 80)
    assert len(frame) == 14 + (length or frames.smallest(version, protocol))
    anew = parsed.copy()
    for layer in (IP, TCP, UDP):
        if layer in anew:
            del anew[layer].chksum
    assert bytes(anew) == frame


@EACH
def test_decoding_undoes_building(version, protocol):
    fields = frames.decode(frames.build(packet(version, protocol, ttl=9, length=99), SOURCE_MAC, DESTINATION_MAC))
    expected = {
        "source_mac": SOURCE_MAC,
        "destination_mac": DESTINATION_MAC,
        "source": ENDS[version][0],
        "destination": ENDS[version][1],
        "to": ENDS[version][1],
        "ttl": 9,
        "length": 99,
        "protocol": protocol.name,
        "source_port": 40000,
        "destination_port": 80,
        "checksums": "right",
        **({"tcp_flags": "SYN"} if protocol is Protocol.TCP else {}),
    }
    assert fields == expected


@EACH
@pytest.mark.parametrize("place", [26, -3])
def test_a_wrong_checksum_is_seen(version, protocol, place):
    frame = bytearray(frames.build(packet(version, protocol, length=99), SOURCE_MAC, DESTINATION_MAC))
    frame[place] ^= 1
    assert frames.decode(bytes(frame))["checksums"] == "wrong"


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_sum_of_zero_is_sent_as_its_other_form(version):
    def checksum(sport):
        return Ether(frames.build(packet(version, Protocol.UDP, sport), SOURCE_MAC, DESTINATION_MAC))[UDP].chksum

    # The source port that makes up for the rest of the sum.
    assert checksum(1 + checksum(1)) == 0xFFFF


def test_icmp_answers():
    source, destination = ENDS[4]
    frame = bytes(Ether() / IP(src=destination, dst=source) / ICMP(type=3, code=4, nexthopmtu=1300) / Raw(b"quote12"))
    told = frames.decode(frame)
    assert (told["protocol"], told["message"]) == ("ICMP", "fragmentation needed, MTU 1300")
    assert (told["checksums"], "source_port" in told) == ("right", False)
    source, destination = ENDS[6]
    frame = bytes(Ether() / IPv6(src=destination, dst=source) / ICMPv6PacketTooBig(mtu=1300) / Raw(b"quote"))
    told = frames.decode(frame)
    assert (told["protocol"], told["message"]) == ("ICMPv6", "packet too big, MTU 1300")
    assert told["checksums"] == "right"
    assert frames.decode(bytes(Ether() / IP() / ICMP(type=13)))["message"] == "type 13 code 0"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        *[("S", 0x02), ("s", 0x02), ("SA", 0x12), ("S.", 0x12), ("FA", 0x11), ("R", 0x04), ("syn", 0x02)],
        *[("syn,ack", 0x12), ("SYN+ACK", 0x12), ("FSRPAUEC", 0xFF), ("SS", 0x02), ("fin", 0x01)],
    ],
)
def test_flags(text, flags):
    assert frames.parse_flags(text) == flags


@pytest.mark.parametrize("text", ["", "X", "syn,x", "0x02", "syn ack", ","])
def test_what_are_no_flags(text):
    with pytest.raises(ValueError):
        frames.parse_flags(text)


def test_names_of_flags():
    assert frames.flag_names(0x12) == "SYN ACK"
    assert frames.flag_names(0) == "none"
