"""Frames in, and what has to come out of them, named in pairs: `known` and `after_snat`, `moved` and `after_move`.

A function that makes a frame takes the place where its case runs (`At`) and does first what has to happen before.
One that makes the frame expected takes the place and the frame.
"""

from dataclasses import dataclass

from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6PacketTooBig, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from bpf import oracle
from bpf.rig import (
    BACKEND_MACS,
    CLIENT_MAC,
    EMPTY,
    GATEWAY,
    MACS,
    PROTOCOLS,
    ROUTER_MAC,
    SIDES,
    SMALL_MTU,
    TABLE_SIZE,
    WEB,
    ether,
    ip,
    l4,
    reply,
    request,
    set_forwarding,
)
from datapath.plan import operations as ops
from netns.topology import kernel_at_least

PADDING = b"\xaa" * 18


@dataclass(frozen=True)
class At:
    """Where a case runs."""

    rig: object
    version: int
    protocol: str

    @property
    def side(self):
        return SIDES[self.version]

    @property
    def key(self):
        return self.version, WEB, PROTOCOLS[self.protocol]

    def request(self, **fields):
        """A client's packet; a dict is a value by IP version."""
        fields = {name: value[self.version] if isinstance(value, dict) else value for name, value in fields.items()}
        return request(self.version, self.protocol, **fields)

    def head(self, destination=None, source=None, ttl=63, **fields):
        """Ethernet and IP headers towards the VIP, unless said otherwise."""
        return ether() / ip(self.version, source or self.side.client, destination or self.side.vip, ttl=ttl, **fields)


def sends(**fields):
    """A client's packet."""
    return lambda at: at.request(**fields)


def replies(**fields):
    """A backend's answer to a request that has those fields; `ttl` is the answer's."""
    ttl = fields.pop("ttl", 63)

    def make(at):
        source = fields.get("source")
        result = at.rig.run(at.request(source=getattr(at.side, source) if source else None))
        return reply(at.version, result, at.protocol, ttl=ttl)

    return make


# --- translated ---


def backend_in_slot(at, frame):
    """((address, port), MAC address) by the oracle: rig.py's tables repeat the backends slot by slot."""
    packet = Ether(frame)
    ends = oracle.network(packet).src, oracle.transport(packet).sport
    slot = oracle.slot_hash(*ends, WEB, PROTOCOLS[at.protocol]) % TABLE_SIZE
    host = 11 + slot % 2
    return (at.side.backend.format(host), 8080), BACKEND_MACS[host]


def after_snat(at, frame):
    """On its way to the backend of its slot, the client's port kept."""
    backend, mac = backend_in_slot(at, frame)
    return oracle.translated(frame, source=(at.side.snat, 20000), destination=backend, mac=(MACS["out0"], mac))


def after_snat_behind_gateway(at, frame):
    ends = {"source": (at.side.snat, 20000), "destination": (at.side.gateway.format(1), 8080)}
    return oracle.translated(frame, **ends, mac=(MACS["out0"], BACKEND_MACS[12]))


def without_checksum(at):
    return bytes(at.head() / UDP(sport=20000, dport=WEB, chksum=0) / Raw(b"x"))


def padded(at):
    return at.request(payload=b"") + PADDING


def after_snat_padded(at, frame):
    return after_snat(at, frame[: -len(PADDING)]) + PADDING


def known(at):
    at.rig.run(at.request())
    return at.request(flags="A")


def moved(at):
    """Of a flow whose backend went; the service keeps the other one."""
    frame = at.request()
    (address, _), _ = backend_in_slot(at, frame)
    at.rig.run(frame)
    (other,) = [number for (key, name), number in at.rig.backend_ids.items() if key == at.key and name != address]
    gone = at.rig.backend_ids[at.key, address]
    table = other.to_bytes(4, "little") * TABLE_SIZE
    at.rig.execute(ops.PutLut(at.rig.lut_id(at.key), table), ops.DeleteEntry("backends_v1", gone.to_bytes(4, "little")))
    return at.request(flags="A")


def after_move(at, frame):
    (address, _), _ = backend_in_slot(at, frame)
    host = 12 if address == at.side.backend.format(11) else 11
    ends = {"source": (at.side.snat, 20000), "destination": (at.side.backend.format(host), 8080)}
    return oracle.translated(frame, **ends, mac=(MACS["out0"], BACKEND_MACS[host]))


def after_reply(at, frame):
    """On its way to the client on link."""
    ends = {"source": (at.side.vip, WEB), "destination": (at.side.client, 20000)}
    return oracle.translated(frame, **ends, mac=(MACS["in0"], CLIENT_MAC))


def after_reply_to_far_client(at, frame):
    ends = {"source": (at.side.vip, WEB), "destination": (at.side.far_client, 20000)}
    return oracle.translated(frame, **ends, mac=(MACS["in0"], ROUTER_MAC))


def after_reply_for_the_stack(at, frame):
    """Translated, but the TTL and the MAC addresses are the stack's to change."""
    ends = {"source": (at.side.vip, WEB), "destination": (at.side.lost_client, 20000)}
    return oracle.translated(frame, **ends, hops=0)


# --- answered ---


def echo(at, destination=None, source=None, **fields):
    head = at.head(destination, source)
    if at.version == 4:
        return bytes(head / ICMP(type=8, id=7, seq=3, **fields) / Raw(b"payload"))
    return bytes(head / ICMPv6EchoRequest(id=7, seq=3, data=b"payload", **fields))


def echo_from(source):
    return lambda at: echo(at, source=source)


def after_echo(_, frame):
    return oracle.echo_reply(frame)


def after_expiry(_, frame):
    return oracle.icmp_error(frame, "expired")


def after_refusal(_, frame):
    return oracle.icmp_error(frame, "unreachable")


def padded_to_empty(at):
    return at.request(port=EMPTY, payload=b"") + PADDING


def after_refusal_padded(_, frame):
    return oracle.icmp_error(frame[: -len(PADDING)], "unreachable")


def after_too_big(_, frame):
    # Older kernels do not say which MTU it was: then the smallest that every link has.
    return oracle.icmp_error(frame, "big", SMALL_MTU if kernel_at_least(5, 12) else 1280)


# --- passed ---


def with_bytes(frame, offset, value):
    return frame[:offset] + value + frame[offset + len(value) :]


def to_mac(mac):
    return lambda at: with_bytes(at.request(), 0, bytes.fromhex(mac))


def vlan(at):
    return bytes(ether() / Dot1Q(vlan=7) / Ether(at.request()).payload)


def provider_vlan(_):
    return bytes(Ether(src=CLIENT_MAC, dst=MACS["in0"], type=0x88A8) / Dot1Q(vlan=7))


def arp(at):
    return bytes(ether() / ARP(pdst=at.side.vip))


def fragment(at):
    body = l4(at.protocol, 20000, WEB) / Raw(b"x" * 32)
    if at.version == 4:
        return bytes(at.head(flags="MF") / body)
    return bytes(at.head() / IPv6ExtHdrFragment(m=1, id=1) / body)


def last_fragment(at, destination=None):
    if at.version == 4:
        return bytes(at.head(destination, frag=4, proto=17) / Raw(b"x" * 32))
    return bytes(at.head(destination) / IPv6ExtHdrFragment(offset=4, nh=17) / Raw(b"x" * 32))


def destination_options(at):
    return bytes(at.head() / IPv6ExtHdrDestOpt() / l4(at.protocol, 20000, WEB, "S"))


def extended(at, destination=None):
    """More extension headers than are looked behind."""
    packet = at.head(destination)
    for _ in range(5):
        packet = packet / IPv6ExtHdrDestOpt()
    return bytes(packet / l4(at.protocol, 20000, WEB))


def sctp(at, destination=None):
    return bytes(at.head(destination, **{"proto" if at.version == 4 else "nh": 132}) / Raw(b"x" * 32))


def of_protocol(number, payload):
    """An IP packet of any protocol."""
    return lambda at: bytes(at.head(**{"proto" if at.version == 4 else "nh": number}) / Raw(payload))


def error_about_reply(at):
    """From a router on the way to the client."""
    quote = ip(at.version, at.side.vip, at.side.client) / l4("udp", WEB, 20000)
    return bytes(at.head() / too_big(at.version) / quote)


def too_big(version):
    return ICMP(type=3, code=4) if version == 4 else ICMPv6PacketTooBig()


def error_about_known_reply(at):
    at.rig.run(at.request())
    return error_about_reply(at)


def after_error(at, _):
    """On its way to the backend, about what that one sent."""
    backend, mac = backend_in_slot(at, at.request())
    quote = ip(at.version, backend[0], at.side.snat) / l4("udp", backend[1], 20000)
    return bytes(
        ether(MACS["out0"], mac) / ip(at.version, at.side.client, backend[0], ttl=62) / too_big(at.version) / quote
    )


def neighbour_solicitation(at):
    return bytes(at.head(ttl=255) / ICMPv6ND_NS(tgt=at.side.vip))


def to_node(port, address="own"):
    """A packet to an address of the node."""
    return lambda at: bytes(at.head(getattr(at.side, address)) / l4(at.protocol, 20000, port))


# --- dropped ---


def network_bytes(offset4, value4, offset6, value6):
    """A request whose IP header is changed after the checksums were computed."""

    def make(at):
        offset, value = (offset4, value4) if at.version == 4 else (offset6, value6)
        return with_bytes(at.request(), 14 + offset, value)

    return make


def transport_bytes(tcp, udp):
    """Likewise for the transport header: each is (offset, value)."""

    def make(at):
        offset, value = tcp if at.protocol == "tcp" else udp
        return with_bytes(at.request(), (34 if at.version == 4 else 54) + offset, value)

    return make


def shortened(at):
    return at.request(payload=b"x" * 100)[:-1]


def to_mapped_vip(at):
    return bytes(at.head("::ffff:192.0.2.10") / l4(at.protocol, 20000, WEB))


def out_of_ports(at):
    """The only port of the range is another client's."""
    assert at.rig.run(at.request(port=GATEWAY, source=at.side.far_client)).outcome == "request_new_flow"
    return at.request(port=GATEWAY)


def forwarding_disabled(at):
    """Switched on again by the test."""
    set_forwarding(at.rig.node, False)
    return at.request()


def behind_metadata(at):
    """No room is left in front of the frame."""
    return bytes(212) + at.request(port=EMPTY)


def limited(at):
    """More errors than a second may have, within one."""
    frame = at.request(port=EMPTY)
    for _ in range(20):
        verdicts = [at.rig.push(frame)[0] for _ in range(1100)]
        if verdicts[-1] == 1:
            return frame
    raise AssertionError("the limit was never reached")


def error_for_another(at):
    """About a reply of a flow that another load balancer has; the next one is at a backend's address."""
    at.rig.put_peers(at.version, at.side.snat, at.side.backend.format(11))
    return error_about_reply(at)


def after_relay(at, frame):
    sent = ether(MACS["out0"], BACKEND_MACS[11]) / Raw(frame[14:])
    sent.type = Ether(frame).type
    return oracle.in_ip(bytes(sent), at.side.snat, at.side.backend.format(11))
