"""The programs on the nodes that backends are on, against an oracle; then with real sockets behind a real device."""

import contextlib
import itertools
import socket
import time
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPerror6, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from bpf import oracle
from bpf.conftest import REPOSITORY
from datapath.compile import layouts
from datapath.compile.layouts import FrontendValue, NodeConfig
from datapath.compile.outcomes import NODE_OUTCOMES
from datapath.kernel import libbpf, tc
from datapath.kernel.attachments import Transaction
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.devices import links
from datapath.kernel.entries import read_entries
from datapath.kernel.pins import Pins
from netns.topology import NetNS, bpffs, veth, wait_for

SWITCHES = ("enable_ipv4", "enable_ipv6", "enable_opt", "enable_geneve", "enable_ipip")
ALL = dict.fromkeys(SWITCHES, 1)
LB = {4: "10.0.1.1", 6: "fd02::1"}
CLIENT = {4: "198.51.100.2", 6: "fd01::2"}
BACKEND = {4: "10.0.1.11", 6: "fd02::11"}
VIP = {4: "192.0.2.10", 6: "2001:db8::10"}
OTHER_VIP = {4: "192.0.2.11", 6: "2001:db8::11"}
VERSIONS, PROTOCOLS = (4, 6), ("tcp", "udp")
HOST_MAC = "00:00:00:00:00:00"
"""Of the loopback device, which frames come in on here."""
UNSPEC, SHOT = 0xFFFFFFFF, 2


class Node:
    """The loaded object."""

    def __init__(self, obj):
        self.obj = obj
        self.programs = {name: obj.program_fd(f"tc_node_{name}") for name in ("ingress", "egress")}

    def counters(self):
        cells = read_entries(self.obj.map_fd(layouts.NODE_OUTCOMES))
        return {int.from_bytes(k, "little"): sum(memoryview(v).cast("Q")[::2]) for k, v in cells}

    def entries(self, name):
        return dict(read_entries(self.obj.map_fd(name)))

    def run(self, frame, direction="ingress"):
        """(outcome, frame afterwards)"""
        before = self.counters()
        verdict, after, _ = libbpf.run_program(self.programs[direction], bytes(frame))
        changed = [index for index, number in self.counters().items() if number != before[index]]
        assert len(changed) == 1
        outcome = NODE_OUTCOMES[changed[0]]
        assert verdict == (UNSPEC if outcome.verdict.value == "pass" else SHOT)
        return outcome.name, after


@contextlib.contextmanager
def node_with(path, **switches):
    with BpfObject(path.read_bytes(), path.name) as obj:
        obj.set_initial_value(".rodata.config", bytes(NodeConfig(**switches)))
        obj.load()
        yield Node(obj)


@pytest.fixture(scope="session")
def node_object(lb_object):
    return REPOSITORY / "build" / "bpf" / "tc_node.bpf.o"


@pytest.fixture
def node(node_object):
    with node_with(node_object, **ALL) as node:
        yield node


# --- frames ---


def ip(version, source, destination, **fields):
    return {4: IP, 6: IPv6}[version](src=source, dst=destination, **fields)


def l4(protocol, sport, dport, flags="S"):
    return TCP(sport=sport, dport=dport, flags=flags) if protocol == "tcp" else UDP(sport=sport, dport=dport)


def ether():
    return Ether(src="02:00:00:00:00:fe", dst=HOST_MAC)


def request(version, protocol="tcp", *, flags="S", destination=None, payload=b"x" * 30):
    """As a load balancer translated it."""
    ends = CLIENT[version], destination or BACKEND[version]
    return bytes(ether() / ip(version, *ends) / l4(protocol, 20000, 8080, flags) / Raw(payload))


def reply(version, protocol="tcp", *, flags="SA", payload=b"y" * 31):
    return bytes(
        ether() / ip(version, BACKEND[version], CLIENT[version]) / l4(protocol, 8080, 20000, flags) / Raw(payload)
    )


def from_vip(version, frame, vip=VIP):
    return oracle.translated(frame, source=(vip[version], 80), hops=0)


def with_option(version, protocol="tcp", vip=VIP, **fields):
    return oracle.with_option(request(version, protocol, **fields), (vip[version], 80))


def in_geneve(version, protocol="tcp", told=True, vip=VIP, **fields):
    frontend = (vip[version], 80) if told else None
    return oracle.in_geneve(request(version, protocol, **fields), LB[version], BACKEND[version], 1, frontend)


def geneve_at(version):
    """Offset of the Geneve header."""
    return 14 + {4: 20, 6: 40}[version] + 8


def patched(frame, at, data):
    return frame[:at] + data + frame[at + len(data) :]


def in_ip(version, outer, **fields):
    """To the VIP itself: a tunnel leaves the packet as it is."""
    return oracle.in_ip(request(version, destination=VIP[version], **fields), LB[outer], BACKEND[outer])


TELLING = {"opt": with_option, "geneve": in_geneve}
EVERY = [pytest.param(*each, id="-".join(map(str, each))) for each in itertools.product(TELLING, VERSIONS, PROTOCOLS)]
every = pytest.mark.parametrize(("way", "version", "protocol"), EVERY)
versions = pytest.mark.parametrize("version", VERSIONS)
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)


# --- what comes in ---


@every
def test_recorded_and_translated(node, way, version, protocol):
    outcome, after = node.run(TELLING[way](version, protocol))
    plain = request(version, protocol)
    if way == "opt":
        assert (outcome, after) == ("option_recorded", with_option(version, protocol))
    else:
        assert (outcome, after[14:]) == ("geneve_recorded", plain[14:])
    (value,) = node.entries(layouts.NODE_OPENINGS).values()
    known = FrontendValue.from_buffer_copy(value)
    assert (layouts.unpack_address(bytes(known.address)).compressed, known.port) == (VIP[version], 80)
    for flags in ("SA", "A", "PA", "R", "FA"):
        for size in (0, 1, 30, 1000):
            frame = reply(version, protocol, flags=flags, payload=b"z" * size)
            outcome, after = node.run(frame, "egress")
            assert outcome == "reply_translated"
            assert after.hex() == from_vip(version, frame).hex()


@every
def test_other_replies_are_left(node, way, version, protocol):
    node.run(TELLING[way](version, protocol))
    other = oracle.translated(reply(version, protocol), source=(BACKEND[version], 8081), hops=0)
    assert node.run(other, "egress") == ("reply_passed", other)
    third = {"tcp": "udp", "udp": "tcp"}[protocol]
    assert node.run(reply(version, third), "egress") == ("reply_passed", reply(version, third))


@versions
@pytest.mark.parametrize("way", TELLING)
def test_established_connections_are_apart(node, way, version):
    """No flood of SYNs reaches them; the node's own segment makes one, a reset does not."""
    node.run(TELLING[way](version))
    for flags in ("SA", "R"):
        node.run(reply(version, flags=flags), "egress")
        assert (len(node.entries(layouts.NODE_OPENINGS)), len(node.entries(layouts.NODE_REPLIES))) == (1, 0)
    node.run(reply(version, flags="A"), "egress")
    assert (len(node.entries(layouts.NODE_OPENINGS)), len(node.entries(layouts.NODE_REPLIES))) == (0, 1)
    node.run(TELLING[way](version))
    assert (len(node.entries(layouts.NODE_OPENINGS)), len(node.entries(layouts.NODE_REPLIES))) == (0, 1)
    # A connection to another service from the same port takes its place.
    node.run(TELLING[way](version, vip=OTHER_VIP))
    assert (len(node.entries(layouts.NODE_OPENINGS)), len(node.entries(layouts.NODE_REPLIES))) == (1, 0)
    frame = reply(version)
    assert node.run(frame, "egress")[1] == from_vip(version, frame, OTHER_VIP)


@every
def test_direct_connections_are_answered_by_the_backend_itself(node, way, version, protocol):
    node.run(TELLING[way](version, protocol))
    node.run(reply(version, protocol, flags="A"), "egress")
    assert node.run(request(version, protocol)) == ("direct_forgotten", request(version, protocol))
    assert node.run(reply(version, protocol), "egress") == ("reply_passed", reply(version, protocol))
    assert node.run(request(version, protocol)) == ("request_passed", request(version, protocol))


@versions
@pytest.mark.parametrize("flags", ["A", "PA", "SA", "R"])
def test_further_segments_forget_nothing(node, version, flags):
    node.run(with_option(version))
    assert node.run(request(version, flags=flags)) == ("request_passed", request(version, flags=flags))
    assert node.run(reply(version), "egress")[0] == "reply_translated"


@versions
def test_geneve_without_option(node, version):
    node.run(in_geneve(version))
    outcome, after = node.run(in_geneve(version, told=False, flags="A"))
    assert (outcome, after[14:]) == ("geneve_unpacked", request(version, flags="A")[14:])
    assert node.run(reply(version), "egress")[0] == "reply_translated"


@versions
@pytest.mark.parametrize(
    ("at", "data"),
    [(0, b"\x43"), (2, b"\x08\0"), (4, b"\0\0\x03"), (8, b"\x01\x02"), (10, b"\x82"), (11, b"\x01")],
    ids=["version", "protocol", "vni", "class", "type", "length"],
)
def test_foreign_geneve(node, version, at, data):
    frame = patched(in_geneve(version), geneve_at(version) + at, data)
    assert node.run(frame) == ("geneve_foreign_passed", frame)
    assert node.entries(layouts.NODE_OPENINGS) == {}


@versions
@pytest.mark.parametrize("outer", VERSIONS)
@pytest.mark.parametrize("size", [0, 1, 30, 1000])
def test_ipip(node, version, outer, size):
    frame = in_ip(version, outer, payload=b"x" * size)
    outcome, after = node.run(frame)
    assert outcome == "ipip_unpacked"
    assert after.hex() == request(version, destination=VIP[version], payload=b"x" * size).hex()


@versions
@protocols
def test_switched_off(node_object, version, protocol):
    """What is off is left as it is."""
    frames = {"enable_opt": with_option(version, protocol), "enable_geneve": in_geneve(version, protocol)}
    frames["enable_ipip"] = in_ip(version, version)
    for switch, frame in frames.items():
        with node_with(node_object, **{**ALL, switch: 0}) as node:
            outcome, after = node.run(frame)
            assert outcome in ("request_passed", "protocol_passed")
            assert after == frame
            assert node.entries(layouts.NODE_OPENINGS) == {}
    with node_with(node_object, **{**ALL, f"enable_ipv{version}": 0}) as node:
        for frame in frames.values():
            assert node.run(frame) == ("protocol_passed", frame)


@versions
@pytest.mark.parametrize("at", [0, 1])
def test_other_options(node, version, at):
    """Another type or length is not ours."""
    frame = patched(with_option(version), {4: 34, 6: 56}[version] + at, b"\x07")
    if version == 4:
        frame = frame[:14] + oracle.internet_checksum(frame[14:42]) + frame[42:]
    assert node.run(frame) == ("request_passed", frame)


# --- fragments ---


@versions
def test_fragments_of_replies(node, version):
    node.run(with_option(version, "udp"))
    whole = reply(version, "udp", payload=bytes(range(256)) * 12)
    parts = oracle.fragments(whole, 1024)
    wanted = oracle.fragments(from_vip(version, whole), 1024)
    got = [node.run(part, "egress") for part in parts]
    assert [outcome for outcome, _ in got] == ["reply_translated"] + ["reply_fragment_translated"] * (len(parts) - 1)
    assert [after.hex() for _, after in got] == [frame.hex() for frame in wanted]
    other = oracle.fragments(whole, 1024, 0x4321)[1]
    assert node.run(other, "egress") == ("fragment_passed", other)


@versions
def test_fragments_of_requests(node, version):
    first, last = oracle.fragments(request(version, "udp", payload=b"x" * 1400), 1024)
    told = oracle.with_option(first, (VIP[version], 80))
    assert node.run(told) == ("option_recorded", told)
    assert node.run(last) == ("fragment_passed", last)
    assert len(node.entries(layouts.NODE_OPENINGS)) == 1
    for part in oracle.fragments(in_geneve(version, payload=b"x" * 1400), 1024):
        assert node.run(part) == ("fragment_passed", part)


@versions
def test_udp_without_checksum(node, version):
    """None stays none."""
    node.run(with_option(version, "udp"))
    frame = bytes(
        ether() / ip(version, BACKEND[version], CLIENT[version]) / UDP(sport=8080, dport=20000, chksum=0) / Raw(b"z")
    )
    assert node.run(frame, "egress")[1].hex() == from_vip(version, frame).hex()


# --- ICMP errors of the node ---


def quoted(version, protocol="udp", option=False, port=8080):
    """The packet that an error is about, as the backend got it."""
    head = ip(version, CLIENT[version], BACKEND[version])
    frame = bytes(ether() / head / l4(protocol, 20000, port) / Raw(b"x" * 30))
    return (oracle.with_option(frame, (VIP[version], 80)) if option else frame)[14:]


def error(version, quote, source=None, kind=None):
    """An ICMP error, as the kernel makes it: destination unreachable, port."""
    head = ip(version, source or BACKEND[version], CLIENT[version])
    message = ICMP(type=3, code=3) if version == 4 else ICMPv6DestUnreach(code=4)
    if kind is not None:
        message.type = kind
    return bytes(ether() / head / message / Raw(quote[:500]))


def patched_quote(version, quote):
    """The quote with the service in place of the backend; its transport checksum is left."""
    at = {4: 16, 6: 24}[version]
    address = socket.inet_pton({4: socket.AF_INET, 6: socket.AF_INET6}[version], VIP[version])
    quote = patched(quote, at, address)
    transport = (quote[0] & 15) * 4 if version == 4 else 40
    if version == 6 and quote[6] == 60:
        transport += 24
    quote = patched(quote, transport + 2, (80).to_bytes(2, "big"))
    if version == 4:
        quote = oracle.internet_checksum(patched(quote[:transport], 10, bytes(2))) + quote[transport:]
    return quote


@every
def test_errors_of_the_node(node, way, version, protocol):
    """As for a port that nobody listens on: the client gets one about the packet that it sent."""
    node.run(TELLING[way](version, protocol))
    quote = quoted(version, protocol, option=way == "opt")
    outcome, after = node.run(error(version, quote), "egress")
    assert outcome == "reply_error_translated"
    assert after.hex() == error(version, patched_quote(version, quote), VIP[version]).hex()
    # What a router behind the node says keeps its sender.
    router = LB[version]
    outcome, after = node.run(error(version, quote, router), "egress")
    assert outcome == "reply_error_translated"
    assert after.hex() == error(version, patched_quote(version, quote), router).hex()
    # An error makes no connection of an opening.
    assert (len(node.entries(layouts.NODE_OPENINGS)), len(node.entries(layouts.NODE_REPLIES))) == (1, 0)


@versions
def test_other_errors_are_left(node, version):
    node.run(with_option(version, "udp"))
    whole = quoted(version)
    echo = {4: 8, 6: 128}[version]
    for frame in (
        error(version, quoted(version, port=8081)),
        error(version, quoted(version, "tcp")),
        error(version, whole, kind=echo),
        error(version, whole[: {4: 20, 6: 40}[version]]),
        error(version, whole[:10]),
        error(version, patched(whole, {4: 9, 6: 6}[version], b"\x84")),
    ):
        assert node.run(frame, "egress") == ("protocol_passed", frame)


# --- the rest ---


def too_short_inside(version):
    inner = {4: b"\x45" + bytes(9), 6: b"\x60" + bytes(9)}[version]
    head = ip(version, LB[version], BACKEND[version], **{{4: "proto", 6: "nh"}[version]: {4: 4, 6: 41}[version]})
    return bytes(ether() / head / Raw(inner))


REST = {
    "change_failed_dropped": too_short_inside,
    "malformed_passed": lambda version: patched(request(version), 14, {4: b"\x44", 6: b"\x50"}[version]),
    "other_host_passed": lambda version: patched(with_option(version), 0, b"\x02\0\0\0\0\x09"),
    "protocol_passed": lambda version: bytes(ether() / {4: ARP(), 6: ip(6, CLIENT[6], BACKEND[6], nh=132)}[version]),
}


@versions
@pytest.mark.parametrize("outcome", REST)
def test_rest(node, version, outcome):
    frame = REST[outcome](version)
    got, after = node.run(frame)
    assert got == outcome
    if outcome.endswith("_passed"):
        assert after == frame
    assert node.entries(layouts.NODE_OPENINGS) == {}


def test_every_outcome_has_a_case():
    source = Path(__file__).read_text().split("def test_every_outcome_has_a_case")[0]
    assert [each.name for each in NODE_OUTCOMES if f'"{each.name}"' not in source] == []


# --- real sockets ---

NODE_MAC, CLIENT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture
def wire(node_object, tmp_path):
    """(namespace of the node, raw socket at the other end); the client itself is nobody, frames are made here."""
    node, peer = NetNS(), NetNS()
    veth(node, "eth0", peer, "peer0")
    node.run(f"ip link set eth0 address {NODE_MAC}")
    # Packets are looked at as they are on the wire.
    peer.run("ethtool -K peer0 gro off")
    node.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0")
    peer.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    # A link is up a moment after it was told to be; frames before that are lost.
    for namespace, device in ((node, "eth0"), (peer, "peer0")):
        wait_for(lambda n=namespace, d=device: "state UP" in n.run(f"ip link show {d}"), what=f"{device} up")
    for version in VERSIONS:
        more = {4: "/24", 6: "/64 nodad"}[version]
        node.run(f"ip address add {BACKEND[version]}{more} dev eth0")
        node.run(f"ip -{version} route add default via {LB[version]}")
        node.run(f"ip neighbour replace {LB[version]} lladdr {CLIENT_MAC} dev eth0 nud permanent")
    with contextlib.ExitStack() as stack:
        pins = Pins(stack.enter_context(bpffs(tmp_path / "bpffs")) / "datapath")
        loaded = stack.enter_context(node_with(node_object, **ALL))
        with node:
            pins.create()
            with Transaction() as transaction:
                for direction, fd in loaded.programs.items():
                    tc.attach(transaction, pins, "tc_node", fd, link=links()["eth0"], direction=direction)
        with peer:
            raw = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
            raw.bind(("peer0", 0))
        raw.settimeout(0.5)
        yield node, raw
        with node:
            tc.detach_all(pins, "tc_node")
    node.close()
    peer.close()


def tell(way, version, frame):
    """The frame (to the backend) as the load balancer sends it; by IP tunnel it goes to the VIP."""
    frame = patched(frame, 0, bytes.fromhex((NODE_MAC + CLIENT_MAC).replace(":", "")))
    told = (VIP[version], 80) if oracle.tells(frame) else None
    if way == "opt":
        return oracle.with_option(frame, told) if told else frame
    if way == "geneve":
        return oracle.in_geneve(frame, LB[version], BACKEND[version], 1, told)
    outer = int(way[-1])
    return oracle.in_ip(oracle.translated(frame, destination=(VIP[version], 80), hops=0), LB[outer], BACKEND[outer])


def received(raw, version):
    """The next packet to the client."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            packet = Ether(raw.recv(65535))
            kind = {4: IP, 6: IPv6}[version]
            if kind in packet and packet[kind].dst == CLIENT[version] and packet.dst == CLIENT_MAC:
                return packet
    raise AssertionError("nothing came")


WAYS = ["opt", "geneve", "ipip4", "ipip6"]


@contextlib.contextmanager
def listening(node, way, version, protocol):
    """A service at the backend; what comes by IP tunnel is addressed to the VIP, which the node then has."""
    tunnelled = way.startswith("ipip")
    if tunnelled:
        # An IPv6 address is there at once, and so is the route to its network, which is another; its own comes later.
        more = {4: "", 6: " nodad"}[version]
        node.run(f"ip address add {VIP[version]} dev lo{more}")
        wait_for(lambda: node.run(f"ip route get {VIP[version]}").startswith("local "), what="the VIP's local route")
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[protocol]
    with node, socket.socket({4: socket.AF_INET, 6: socket.AF_INET6}[version], kind) as server:
        server.bind((VIP[version], 80) if tunnelled else (BACKEND[version], 8080))
        server.settimeout(5)
        yield server


@versions
@pytest.mark.parametrize("way", WAYS)
def test_tcp(wire, way, version):
    node, raw = wire
    with listening(node, way, version, "tcp") as server:
        server.listen()

        def send(flags, seq, ack=0, payload=b""):
            head = ip(version, CLIENT[version], BACKEND[version])
            segment = TCP(sport=20000, dport=8080, flags=flags, seq=seq, ack=ack, window=65535)
            raw.send(tell(way, version, bytes(ether() / head / segment / Raw(payload))))

        send("S", 100)
        answer = received(raw, version)
        assert (oracle.network(answer).src, answer[TCP].sport, answer[TCP].flags) == (VIP[version], 80, "SA")
        send("A", 101, answer[TCP].seq + 1)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            send("PA", 101, answer[TCP].seq + 1, b"hello")
            assert connection.recv(100) == b"hello"
            sent = bytes(range(256)) * 12
            connection.sendall(sent)
            data = b""
            while len(data) < len(sent):
                packet = received(raw, version)
                assert (oracle.network(packet).src, packet[TCP].sport) == (VIP[version], 80)
                # Left to the device at tc, in segments of several packets; the kernel cuts and completes behind it.
                assert oracle.transport_valid(bytes(packet))
                assert oracle.network_valid(bytes(packet))
                data += bytes(packet[TCP].payload)
            assert data[: len(sent)] == sent


def udp_exchange(wire, way, version, size):
    """Packets of the answer, `size` bytes of payload; the program cares for a whole UDP packet as for fragments."""
    node, raw = wire
    with listening(node, way, version, "udp") as server:
        frame = bytes(ether() / ip(version, CLIENT[version], BACKEND[version]) / l4("udp", 20000, 8080) / Raw(b"ask"))
        raw.send(tell(way, version, frame))
        data, client = server.recvfrom(100)
        assert data == b"ask"
        server.sendto(b"y" * size, client)
        packets = []
        while sum(map(len, packets)) < size:
            packets.append(bytes(received(raw, version)))
            assert oracle.network(Ether(packets[-1])).src == VIP[version]
            assert oracle.network_valid(packets[-1])
        return packets


@versions
@pytest.mark.parametrize("way", WAYS)
def test_udp(wire, way, version):
    (packet,) = udp_exchange(wire, way, version, 11)
    assert oracle.transport_valid(packet)
    assert Ether(packet)[UDP].sport == 80


@versions
@pytest.mark.parametrize("way", WAYS)
def test_udp_checksum_left_to_the_device(wire, way, version):
    """It then holds the pseudo-header's sum, of what leaves."""
    wire[0].run("ethtool -K eth0 tx on")
    (packet,) = udp_exchange(wire, way, version, 11)
    _, data, pseudo = oracle.transport_of(packet)
    assert int.from_bytes(data[6:8], "big") == oracle.internet_sum(pseudo) ^ 0xFFFF


@versions
@pytest.mark.parametrize("way", WAYS)
def test_udp_in_fragments(wire, way, version):
    packets = udp_exchange(wire, way, version, 4000)
    assert len(packets) == 3
    head = {4: 20, 6: 48}[version]
    body = b"".join(packet[14 + head : 14 + oracle.ip_length(packet)] for packet in packets)
    assert body[8:] == b"y" * 4000
    assert int.from_bytes(body[:2], "big") == 80
    addresses = packets[0][26:34] if version == 4 else packets[0][22:54]
    assert not oracle.internet_sum(addresses + bytes([0, 17]) + len(body).to_bytes(2, "big") + body)


@versions
@pytest.mark.parametrize("way", ["opt", "geneve"])
def test_closed_port(wire, way, version):
    """The stack's own error is about the packet that the client sent, and from where it sent it to."""
    _, raw = wire
    frame = bytes(ether() / ip(version, CLIENT[version], BACKEND[version]) / l4("udp", 20000, 8080) / Raw(b"ask"))
    raw.send(tell(way, version, frame))
    packet = received(raw, version)
    kind, inner = {4: (ICMP, IPerror), 6: (ICMPv6DestUnreach, IPerror6)}[version]
    assert (packet[kind].type, packet[kind].code) == {4: (3, 3), 6: (1, 4)}[version]
    assert oracle.network(packet).src == VIP[version]
    assert (packet[inner].src, packet[inner].dst) == (CLIENT[version], VIP[version])
    assert (packet[UDPerror].sport, packet[UDPerror].dport) == (20000, 80)
    assert oracle.network_valid(bytes(packet))
    assert oracle.transport_valid(bytes(packet))
