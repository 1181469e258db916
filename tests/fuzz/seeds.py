"""Valid frames of every kind that the program looks into: what the fuzzer starts from."""

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bpf import frames
from bpf.frames import At, too_big
from bpf.rig import (
    BACKEND_MACS,
    DSR,
    DSR_CROSSED,
    DSR_CROSSED_TIGHT,
    DSR_EMPTY,
    DSR_RANDOM,
    DSR_TIGHT,
    EMPTY,
    MACS,
    RANDOM,
    SIDES,
    SMALL,
    WEB,
    WIDE,
    ether,
    ip,
    l4,
    request,
)

SPORT = 20000
PORTS = (WEB, EMPTY, SMALL, WIDE, RANDOM, DSR, DSR_EMPTY, DSR_TIGHT, DSR_CROSSED, DSR_CROSSED_TIGHT, DSR_RANDOM)
EXTENSIONS = (
    [IPv6ExtHdrHopByHop()],
    [IPv6ExtHdrDestOpt()],
    [IPv6ExtHdrRouting(type=2, addresses=["fd01::99"], segleft=0)],
    [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(segleft=0), IPv6ExtHdrDestOpt()],
    [IPv6ExtHdrDestOpt()] * 5,
)


def make():
    """[(frame, device)]."""
    found = []
    for version in SIDES:
        for protocol in ("tcp", "udp"):
            found += [(frame, "in0") for frame in requests(version, protocol)]
            found += [(frame, "out0") for frame in replies(version, protocol)]
        found += [(frame, "in0") for frame in others(version)]
        found += tunnels(version)
        found += [(frame, "out0") for frame in handed_on(version)]
    return found


def requests(version, protocol):
    """Clients' packets."""
    side = SIDES[version]
    for port in PORTS:
        yield request(version, protocol, port=port)
        yield request(version, protocol, port=port, flags="A", payload=b"x" * 100)
    yield request(version, protocol, flags="FA")
    yield request(version, protocol, flags="R", payload=b"")
    yield request(version, protocol, ttl=1)
    yield request(version, protocol, source=side.far_client)
    yield request(version, protocol, source=side.lost_client)
    for port in (SMALL, DSR_TIGHT, DSR_CROSSED_TIGHT, EMPTY):
        yield request(version, protocol, port=port, payload=b"x" * 1400, dont_fragment=True)
    for port in (WEB, DSR):
        if version == 4:
            for count in (1, 4, 32, 40):
                yield request(4, protocol, port=port, options=[IPOption_NOP()] * count)
        else:
            for chain in EXTENSIONS:
                yield extended(chain, l4(protocol, SPORT, port, "S"))
        yield from fragments(version, protocol, port)


def extended(chain, body):
    packet = ether() / ip(6, SIDES[6].client, SIDES[6].vip)
    for header in chain:
        packet = packet / header.copy()
    return bytes(packet / body / Raw(b"GET"))


def fragments(version, protocol, port):
    """A first fragment and the ones behind it."""
    side = SIDES[version]
    first = l4(protocol, SPORT, port, chksum=0x1234) / Raw(b"x" * 32)
    number = {"tcp": 6, "udp": 17}[protocol]
    for offset, more, body in ((0, 1, first), (6, 1, Raw(b"y" * 48)), (12, 0, Raw(b"z" * 20))):
        if version == 4:
            fields = {"id": port, "frag": offset, "flags": "MF" if more else 0, "proto": number}
            yield bytes(ether() / ip(4, side.client, side.vip, **fields) / body)
        else:
            header = IPv6ExtHdrFragment(id=port, offset=offset, m=more, nh=number)
            yield bytes(ether() / ip(6, side.client, side.vip) / header / body)


def replies(version, protocol):
    """Backends' answers; flows keep the client's port, so it is known which one they go to."""
    side = SIDES[version]
    for host, mac in BACKEND_MACS.items():
        head = ether(mac, MACS["out0"]) / ip(version, side.backend.format(host), side.snat)
        for flags in ("SA", "A", "FA", "R"):
            yield bytes(head / l4(protocol, 8080, SPORT, flags) / Raw(b"200"))
        yield bytes(head / l4(protocol, 8080, SPORT) / Raw(b"x" * 1400))
        quote = ip(version, side.snat, side.backend.format(host)) / l4(protocol, SPORT, 8080)
        for error in errors(version):
            yield bytes(head / error / quote)


def errors(version):
    expired = ICMP(type=11) if version == 4 else ICMPv6TimeExceeded()
    return too_big(version), expired


def others(version):
    """Everything else that comes from a client."""
    at = At(None, version, "udp")
    side = SIDES[version]
    makers = (
        *(frames.echo, frames.vlan, frames.provider_vlan, frames.arp, frames.sctp, frames.error_about_reply),
        *(frames.neighbour_solicitation, frames.extended, frames.padded, frames.without_checksum),
        *(frames.last_fragment, frames.to_node(WEB), frames.to_node(SPORT, "snat"), frames.to_mac("33" * 6)),
    )
    for make_frame in makers:
        if make_frame in (frames.neighbour_solicitation, frames.extended) and version == 4:
            continue
        yield make_frame(at)
    for error in errors(version):
        for body in (TCP(sport=WEB, dport=SPORT), UDP(sport=DSR, dport=SPORT), Raw(b"")):
            yield bytes(at.head() / error / ip(version, side.vip, side.client) / body)


def tunnels(version):
    """Packets in tunnels, to the VIP and to the node."""
    side = SIDES[version]
    for destination in (side.vip, side.snat):
        for inner in (IP(dst="192.0.2.10") / TCP(dport=WEB), IPv6(dst="2001:db8::10") / UDP(dport=WEB)):
            yield bytes(ether() / ip(version, side.client, destination) / inner), "in0"
            geneve = bytes.fromhex("0300655800000200014b810200500000c000020a") + bytes(
                Ether(src="00:00:00:00:00:00", dst="00:00:00:00:00:00") / inner
            )
            yield bytes(ether() / ip(version, side.client, destination) / UDP(sport=40000, dport=6081) / geneve), "in0"


def handed_on(version):
    """ICMP errors about flows of this node and of others, as other load balancers hand them on."""
    side = SIDES[version]
    for host, mac in BACKEND_MACS.items():
        for error in errors(version):
            for protocol, port, sport in (("tcp", WEB, SPORT), ("udp", SMALL, SPORT), ("tcp", WEB, 1), ("udp", DSR, 1)):
                quote = ip(version, side.vip, side.client) / l4(protocol, port, sport)
                inner = ip(version, side.far_client, side.vip) / error / quote
                yield bytes(ether(mac, MACS["out0"]) / ip(version, side.backend.format(host), side.snat) / inner)
