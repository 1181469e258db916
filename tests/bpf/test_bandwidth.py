"""Rates of endpoints against an oracle, by a clock that the test sets; then the programs as they ship."""

import ctypes
import errno
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.all import (
    ARP,
    GRE,
    ICMP,
    IP,
    TCP,
    UDP,
    Dot1Q,
    Ether,
    ICMPv6EchoRequest,
    IPOption_NOP,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    Raw,
)

from bench.programs import _FLAGS
from bpf.conftest import REPOSITORY
from datapath.compile import layouts
from datapath.compile.layouts import (
    ENDPOINT_FIRST,
    ENDPOINT_HOST,
    ENDPOINT_LAST,
    RATE_EGRESS,
    RATE_INGRESS,
    BandwidthConfig,
    Counter,
    Departure,
    Rate,
    RateKey,
    Traffic,
)
from datapath.compile.outcomes import BANDWIDTH_OUTCOMES
from datapath.kernel import abi, libbpf
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.entries import read_entries
from netns.topology import NetNS, veth

SECOND = 10**9
HORIZON = 2 * SECOND
NOW = 1000 * SECOND
"""By the test's clock."""
LOOPBACK = 1
"""Index of the device that frames of a run come in by and leave by."""
FRAME = bytes(12) + b"\x08\x00" + bytes(1500)
UNSPEC, SHOT, REDIRECT = 0xFFFFFFFF, 2, 7
VERDICTS = {"pass": UNSPEC, "drop": SHOT, "forward": REDIRECT}
DB = 5000
"""An endpoint's number."""
MEGABYTE = 10**6


class SkBuff(ctypes.Structure):
    """`struct __sk_buff` as far as it is read here, after a run, too."""

    _fields_ = (
        *abi.SkBuff._fields_,
        ("tc_index", ctypes.c_uint32),
        ("cb", ctypes.c_uint32 * 5),
        ("between", ctypes.c_uint32 * 19),
        ("flow_keys", ctypes.c_uint64),
        ("tstamp", ctypes.c_uint64),
        ("wire_len", ctypes.c_uint32),
        ("gso_segs", ctypes.c_uint32),
        ("socket", ctypes.c_uint64),
        ("gso_size", ctypes.c_uint32),
        ("rest", ctypes.c_uint32 * 3),  # the kernel insists on writing all
    )


@dataclass(frozen=True)
class Result:
    outcome: str
    number: int
    """What queue_mapping is afterwards."""
    tstamp: int
    priority: int
    frame: bytes = field(default=b"", compare=False)
    """As it is afterwards."""


class Manager:
    """The loaded object."""

    def __init__(self, obj, prefix):
        self.obj = obj
        self.programs = {name: obj.program_fd(f"{prefix}_{name}") for name in ("mark", "egress", "ingress")}

    def put(self, name, key, value):
        libbpf.map_update(self.obj.map_fd(name), bytes(key), bytes(value))

    def endpoint(self, number=DB, device=LOOPBACK):
        self.put(layouts.BANDWIDTH_ENDPOINTS, ctypes.c_uint32(device), ctypes.c_uint32(number))

    def rate(self, rate, number=DB, direction=RATE_EGRESS, *, horizon=HORIZON, burst=0, priority=0):
        self.put(layouts.BANDWIDTH_RATES, RateKey(number, direction), Rate(rate, horizon, burst, priority))

    def set_last(self, last, number=DB, direction=RATE_EGRESS):
        self.put(layouts.BANDWIDTH_DEPARTURES, slot(number, direction), Departure(last=last))

    def last(self, number=DB, direction=RATE_EGRESS):
        raw = libbpf.map_lookup(self.obj.map_fd(layouts.BANDWIDTH_DEPARTURES), bytes(slot(number, direction)), 16)
        return Departure.from_buffer_copy(raw).last

    def traffic(self, number=DB, direction=RATE_EGRESS):
        """(packets and bytes that passed, packets and bytes that were dropped)"""
        cells = dict(read_entries(self.obj.map_fd(layouts.BANDWIDTH_STATS))).get(bytes(RateKey(number, direction)), b"")
        size = ctypes.sizeof(Traffic)
        rows = [Traffic.from_buffer_copy(cells, at) for at in range(0, len(cells), size)]
        return tuple(sum(getattr(row, name) for row in rows) for name, _ in Traffic._fields_)

    def counters(self):
        found = {}
        for key, cells in read_entries(self.obj.map_fd(layouts.BANDWIDTH_OUTCOMES)):
            rows = [Counter.from_buffer_copy(cells, at) for at in range(0, len(cells), ctypes.sizeof(Counter))]
            found[int.from_bytes(key, "little")] = (sum(row.packets for row in rows), sum(row.bytes for row in rows))
        return found

    def run(self, program, now=None, *, number=0, frame=FRAME, **fields):
        """Run a program on a packet that queue_mapping says `number` of."""
        if now is not None:
            self.put("test_clock", ctypes.c_uint32(0), ctypes.c_uint64(now))
        before = self.counters()
        context = SkBuff(mark=number, **{"ifindex": LOOPBACK, **fields})
        verdict, after, frame_after = run(self.programs[program], frame, context)
        changed = {index: now for index, now in self.counters().items() if now != before[index]}
        ((index, (packets, size)),) = changed.items()
        wire = fields.get("wire_len") or len(frame)
        assert (packets - before[index][0], size - before[index][1]) == (1, wire)
        outcome = BANDWIDTH_OUTCOMES[index]
        assert verdict == VERDICTS[outcome.verdict.value]
        return Result(outcome.name, after.mark, after.tstamp, after.priority, frame_after)


def slot(number, direction):
    return ctypes.c_uint32(2 * (number - ENDPOINT_FIRST) + direction)


def run(program, frame, context):
    """(verdict, context and frame afterwards) of BPF_PROG_TEST_RUN."""
    after = SkBuff()
    frame_after = ctypes.create_string_buffer(len(frame))
    options = abi.TestRunOptions(
        sz=ctypes.sizeof(abi.TestRunOptions),
        data_in=ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p),
        data_size_in=len(frame),
        data_out=ctypes.cast(frame_after, ctypes.c_void_p),
        data_size_out=len(frame),
        ctx_in=ctypes.addressof(context),
        ctx_size_in=ctypes.sizeof(context),
        ctx_out=ctypes.addressof(after),
        ctx_size_out=ctypes.sizeof(after),
        repeat=1,
    )
    result = libbpf.library().bpf_prog_test_run_opts(program, ctypes.byref(options))
    if result == -errno.EINVAL and context.ingress_ifindex:
        pytest.skip("this kernel (5.10 is one) runs no packet that came in by a device")
    assert result == 0
    return int(options.retval), after, frame_after.raw


def load(contents, name, **config):
    obj = BpfObject(contents, name)
    obj.set_initial_value(".rodata.config", bytes(BandwidthConfig(horizon=HORIZON, **config)))
    obj.load()
    return obj


@pytest.fixture(scope="session")
def clocked(lb_object):
    """The object whose clock the test sets."""
    source = Path(__file__).parent / "programs" / "bandwidth.bpf.c"
    target = lb_object.parent / "test_bandwidth.o"
    multiarch = subprocess.run(["clang", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(
        ["clang", *_FLAGS, "-idirafter", f"/usr/include/{multiarch}", "-c", source, "-o", target], check=True
    )
    return target.read_bytes()


@pytest.fixture
def manager(clocked):
    with load(clocked, "test_bandwidth") as obj:
        yield Manager(obj, "test")


@pytest.fixture
def shipped(lb_object):
    path = REPOSITORY / "build" / "bpf" / "tc_bandwidth.bpf.o"
    with load(path.read_bytes(), path.name) as obj:
        yield Manager(obj, "tc_bandwidth")


# --- the mark ---


def test_a_packet_of_an_endpoint_is_marked(manager):
    manager.endpoint()
    for before in (0, 1, 7):
        assert manager.run("mark", number=before) == Result("endpoint_marked", DB, 0, 0)


def test_a_device_that_is_no_endpoint_s_leaves_the_receive_queue(manager):
    manager.endpoint(device=2)
    assert manager.run("mark", number=3) == Result("unknown_device_passed", 3, 0, 0)


@pytest.mark.parametrize("number", [ENDPOINT_HOST + 1, ENDPOINT_LAST])
def test_every_number_fits_into_the_mark(manager, number):
    manager.endpoint(number)
    assert manager.run("mark").number == number


# --- the endpoint's packets routed ---

CONTAINER, CONTAINER6, FAR, FAR6 = "10.8.0.2", "fd08::2", "198.18.0.9", "2001:db8::9"
MAC = "02:00:00:00:00:01"
ROUTES = f"""
ip link set ve-c address {MAC}
ip address add 10.8.0.1/24 dev ve-c
ip address add fd08::1/64 dev ve-c nodad
ip address add 10.9.0.1/24 dev eth0
ip address add fd09::1/64 dev eth0 nodad
ip address add 10.7.0.1/24 dev eth1
ip address add fd07::1/64 dev eth1 nodad
ip route add default via 10.9.0.2
ip route add default via fd09::2
ip route add 192.0.2.0/24 via 10.7.0.2
ip route add 2001:db8:7::/48 via fd07::2
ip route add 203.0.113.0/24 via inet6 fd09::2 dev eth0
ip route add 10.20.0.0/16 via 10.9.0.2 mtu lock 1000
ip route add 2001:db8:20::/48 via fd09::2 mtu lock 1300
ip route add blackhole 10.21.0.0/16
ip route add unreachable 10.22.0.0/16
ip route add prohibit 10.23.0.0/16
ip route add blackhole 2001:db8:21::/48
ip route add blackhole default table 9
ip rule add ipproto udp dport 999 lookup 9
ip -6 route add blackhole default table 9
ip -6 rule add ipproto udp dport 999 lookup 9
"""


@pytest.fixture(scope="module")
def node():
    """ve-c leads to the endpoint, eth0 and eth1 out of the node."""
    here, there = NetNS(), NetNS()
    for device in ("ve-c", "eth0", "eth1"):
        veth(here, device, there, device)
    for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        here.run(f"sysctl -qw net.{path.replace('/', '.')}=1")
    for command in ROUTES.strip().splitlines():
        here.run(command)
    with here:
        yield here
    here.close()
    there.close()


class Router(Manager):
    """The loaded object with an endpoint behind ve-c; of the devices that lead out, only eth0 is one of ours."""

    def __init__(self, obj):
        super().__init__(obj, "test")
        self.device = socket.if_nametoindex("ve-c")
        self.endpoint(device=self.device)
        self.put(layouts.BANDWIDTH_NATIVES, ctypes.c_uint32(socket.if_nametoindex("eth0")), ctypes.c_uint32(1))

    def frame(self, *layers):
        packet = Ether(dst=MAC, src="02:00:00:00:00:02")
        for layer in layers:
            packet /= layer
        return packet

    def send(self, packet, **fields):
        """(outcome, frame afterwards)"""
        result = self.run("mark", frame=bytes(packet), ifindex=self.device, **fields)
        assert result.number == DB
        return result.outcome, result.frame


@pytest.fixture
def router(clocked, node):
    with load(clocked, "test_bandwidth", route=1) as obj:
        yield Router(obj)


def ip4(**fields):
    return IP(**{"src": CONTAINER, "dst": FAR, **fields})


def ip6(**fields):
    return IPv6(**{"src": CONTAINER6, "dst": FAR6, **fields})


def one_hop_less(packet):
    """What a router sends: one hop less, and the checksum anew."""
    changed = packet.copy()
    if IP in changed:
        changed[IP].ttl -= 1
        del changed[IP].chksum
    else:
        changed[IPv6].hlim -= 1
    return bytes(changed)


UDP_1 = UDP(sport=5000, dport=53) / Raw(b"question")
TCP_1 = TCP(sport=5000, dport=80, flags="A") / Raw(bytes(100))
FULL = Raw(bytes(1472))
"""With UDP and IPv4 header, 1500 bytes."""
ROUTED = {
    "udp": [ip4(), UDP_1],
    "tcp": [ip4(), TCP_1],
    "icmp": [ip4(), ICMP()],
    "another_protocol": [ip4(), GRE()],
    "last_hop_but_one": [ip4(ttl=2), UDP_1],
    "checksum_that_wraps": [ip4(ttl=255, id=0xFEFF), UDP_1],
    "type_of_service": [ip4(tos=0xB8), UDP_1],
    "first_fragment": [ip4(flags="MF", id=7), UDP_1],
    "following_fragment": [ip4(frag=100, id=7, proto=17), Raw(bytes(64))],
    "gateway_of_ipv6": [ip4(dst="203.0.113.9"), UDP_1],
    "neighbour": [ip4(dst="10.9.0.77"), UDP_1],
    "as_long_as_the_device_takes": [ip4(), UDP_1.copy() / Raw(bytes(1472 - 8))],
    "as_long_as_the_route_takes": [ip4(dst="10.20.0.1"), UDP(sport=5000, dport=53), Raw(bytes(972))],
    "udp6": [ip6(), UDP_1],
    "tcp6": [ip6(), TCP_1],
    "icmp6": [ip6(), ICMPv6EchoRequest()],
    "last_hop_but_one6": [ip6(hlim=2), UDP_1],
    "flow_label": [ip6(tc=0xB8, fl=0xABCDE), UDP_1],
    "first_fragment6": [ip6(), IPv6ExtHdrFragment(m=1, id=7), UDP_1],
    "following_fragment6": [ip6(), IPv6ExtHdrFragment(offset=100, id=7, nh=17), Raw(bytes(64))],
    "neighbour6": [ip6(dst="fd09::77"), UDP_1],
}
LEFT_TO_THE_STACK = {
    "no_hop_left": [ip4(ttl=1), UDP_1],
    "no_hop_at_all": [ip4(ttl=0), UDP_1],
    "options": [ip4(options=[IPOption_NOP()] * 4), UDP_1],
    "the_node_itself": [ip4(dst="10.8.0.1"), UDP_1],
    "the_node_s_other_address": [ip4(dst="10.9.0.1"), UDP_1],
    "broadcast": [ip4(dst="10.9.0.255"), UDP_1],
    "everybody": [ip4(dst="255.255.255.255"), UDP_1],
    "multicast": [ip4(dst="224.0.0.251"), UDP_1],
    "loopback": [ip4(dst="127.0.0.1"), UDP_1],
    "from_loopback": [ip4(src="127.0.0.1"), UDP_1],
    "from_nowhere": [ip4(src="0.0.0.0"), UDP_1],
    "from_a_group": [ip4(src="224.0.0.1"), UDP_1],
    "another_device": [ip4(dst="192.0.2.1"), UDP_1],
    "another_endpoint_s_device": [ip4(dst="10.8.0.3"), UDP_1],
    "blackhole": [ip4(dst="10.21.0.1"), UDP_1],
    "unreachable": [ip4(dst="10.22.0.1"), UDP_1],
    "prohibited": [ip4(dst="10.23.0.1"), UDP_1],
    "a_rule_by_port": [ip4(), UDP(sport=5000, dport=999)],
    "longer_than_the_route_takes": [ip4(dst="10.20.0.1"), UDP(sport=5000, dport=53), Raw(bytes(973))],
    "longer_than_the_device_takes": [ip4(), UDP(sport=5000, dport=53), Raw(bytes(1473))],
    "a_trailer": [ip4(len=36), UDP_1, Raw(bytes(20))],
    "longer_than_the_frame": [ip4(len=100), UDP_1],
    "another_version": [ip4(version=5), UDP_1],
    "cut_off_tcp": [ip4(proto=6), Raw(bytes(12))],
    "no_hop_left6": [ip6(hlim=1), UDP_1],
    "hop_by_hop": [ip6(), IPv6ExtHdrHopByHop(), UDP_1],
    "destination_options": [ip6(), IPv6ExtHdrDestOpt(), UDP_1],
    "options_and_fragment": [ip6(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(m=1), UDP_1],
    "the_node_itself6": [ip6(dst="fd08::1"), UDP_1],
    "multicast6": [ip6(dst="ff02::1"), UDP_1],
    "link_local6": [ip6(dst="fe80::1"), UDP_1],
    "from_link_local6": [ip6(src="fe80::1"), UDP_1],
    "from_nowhere6": [ip6(src="::"), UDP_1],
    "from_loopback6": [ip6(src="::1"), UDP_1],
    "mapped": [ip6(src="::ffff:10.8.0.2"), UDP_1],
    "another_device6": [ip6(dst="2001:db8:7::1"), UDP_1],
    "blackhole6": [ip6(dst="2001:db8:21::1"), UDP_1],
    "a_rule_by_port6": [ip6(), UDP(sport=5000, dport=999)],
    "longer_than_the_route_takes6": [ip6(dst="2001:db8:20::1"), UDP(sport=5000, dport=53), Raw(bytes(1253))],
    "a_tag": [Dot1Q(vlan=7), ip4(), UDP_1],
    "arp": [ARP()],
}


@pytest.mark.parametrize("name", ROUTED)
def test_routed(router, name):
    packet = router.frame(*ROUTED[name])
    assert router.send(packet) == ("endpoint_routed", one_hop_less(packet))


@pytest.mark.parametrize("name", LEFT_TO_THE_STACK)
def test_left_to_the_stack(router, name):
    packet = router.frame(*LEFT_TO_THE_STACK[name])
    assert router.send(packet) == ("endpoint_marked", bytes(packet))


def test_frames_to_others_are_left_to_a_bridge(router):
    for mac in ("02:00:00:00:00:77", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb"):
        packet = router.frame(ip4(), UDP_1)
        packet.dst = mac
        assert router.send(packet) == ("endpoint_marked", bytes(packet))


@pytest.mark.parametrize(
    ("layers", "gso", "outcome"),
    [
        (
            [ip4(), TCP(flags="A", dataofs=8, options=[("Timestamp", (1, 1))]), Raw(bytes(2896))],
            1448,
            "endpoint_routed",
        ),
        ([ip4(), TCP(flags="A", options=[("Timestamp", (1, 1))]), Raw(bytes(2898))], 1449, "endpoint_marked"),
        ([ip4(dst="10.20.0.1"), TCP(flags="A"), Raw(bytes(1920))], 960, "endpoint_routed"),
        ([ip4(dst="10.20.0.1"), TCP(flags="A"), Raw(bytes(1922))], 961, "endpoint_marked"),
        ([ip6(), TCP(flags="A"), Raw(bytes(2880))], 1440, "endpoint_routed"),
        ([ip6(), TCP(flags="A"), Raw(bytes(2882))], 1441, "endpoint_marked"),
        ([ip4(), UDP(), Raw(bytes(2944))], 1472, "endpoint_routed"),
        ([ip4(), UDP(), Raw(bytes(2946))], 1473, "endpoint_marked"),
    ],
)
def test_of_a_large_packet_its_pieces_have_to_fit(router, layers, gso, outcome):
    packet = router.frame(*layers)
    expected = bytes(packet) if outcome == "endpoint_marked" else one_hop_less(packet)
    assert router.send(packet, gso_size=gso, gso_segs=2, wire_len=3100) == (outcome, expected)


def test_a_known_neighbour_and_one_that_does_not_answer(router, node):
    packet = router.frame(ip4(), UDP_1)
    for state in ("lladdr 02:00:00:00:00:99 nud permanent", "nud failed"):
        node.run(f"ip neigh replace 10.9.0.2 dev eth0 {state}")
        assert router.send(packet)[0] == "endpoint_routed"
    node.run("ip neigh del 10.9.0.2 dev eth0")


@pytest.mark.parametrize(("path", "layers"), [("ipv4", (ip4(), UDP_1)), ("ipv6", (ip6(), UDP_1))])
def test_where_forwarding_is_off_the_stack_drops(router, node, path, layers):
    packet = router.frame(*layers)
    node.run(f"sysctl -qw net.{path}.conf.ve-c.forwarding=0")
    try:
        assert router.send(packet) == ("endpoint_marked", bytes(packet))
    finally:
        node.run(f"sysctl -qw net.{path}.conf.ve-c.forwarding=1")
    assert router.send(packet)[0] == "endpoint_routed"


def test_of_other_devices_and_without_the_option_nothing_is_routed(router, node, clocked):
    packet = router.frame(ip4(), UDP_1)
    result = router.run("mark", frame=bytes(packet), ifindex=socket.if_nametoindex("eth1"))
    assert (result.outcome, result.frame) == ("unknown_device_passed", bytes(packet))
    with load(clocked, "test_bandwidth") as obj:
        assert Router(obj).send(packet) == ("endpoint_marked", bytes(packet))


# --- egress ---


def test_a_packet_within_the_rate_leaves_at_once(manager):
    manager.rate(MEGABYTE)
    assert manager.run("egress", NOW, number=DB) == Result("sent_at_once", 0, 0, 0)
    assert manager.last() == NOW
    assert manager.traffic() == (1, len(FRAME), 0, 0)


def test_packets_ahead_of_the_rate_leave_one_delay_after_the_other(manager):
    manager.rate(MEGABYTE)
    delay = len(FRAME) * 1000
    manager.run("egress", NOW, number=DB)
    for count in range(1, 5):
        result = manager.run("egress", NOW, number=DB)
        assert result == Result("departure_set", 0, NOW + count * delay, 0)
        assert manager.last() == result.tstamp


def test_a_pause_is_no_credit(manager):
    manager.rate(MEGABYTE)
    manager.run("egress", NOW, number=DB)
    later = NOW + 60 * SECOND
    assert manager.run("egress", later, number=DB).outcome == "sent_at_once"
    assert manager.run("egress", later, number=DB).tstamp == later + len(FRAME) * 1000


def test_the_very_moment_is_at_once(manager):
    delay = len(FRAME) * 1000
    manager.rate(MEGABYTE)
    manager.set_last(NOW - delay)
    assert manager.run("egress", NOW, number=DB).outcome == "sent_at_once"
    manager.set_last(NOW - delay + 1)
    assert manager.run("egress", NOW, number=DB) == Result("departure_set", 0, NOW + 1, 0)


def test_what_would_wait_until_beyond_the_horizon_is_dropped(manager):
    delay = len(FRAME) * 1000
    manager.rate(MEGABYTE)
    last = NOW + HORIZON - delay
    manager.set_last(last)
    assert manager.run("egress", NOW, number=DB) == Result("horizon_dropped", 0, 0, 0)
    assert manager.last() == last
    assert manager.traffic() == (0, 0, 1, len(FRAME))
    assert manager.run("egress", NOW + 1, number=DB) == Result("departure_set", 0, NOW + HORIZON, 0)
    assert manager.traffic() == (1, len(FRAME), 1, len(FRAME))


def test_a_horizon_of_the_rate_s_own(manager):
    manager.rate(MEGABYTE, horizon=3 * len(FRAME) * 1000)
    found = [manager.run("egress", NOW, number=DB).outcome for _ in range(4)]
    assert found == ["sent_at_once", "departure_set", "departure_set", "horizon_dropped"]


def test_a_horizon_beyond_that_of_fq_has_no_effect(manager):
    manager.rate(MEGABYTE, horizon=10 * HORIZON)
    manager.set_last(NOW + HORIZON - len(FRAME) * 1000)
    assert manager.run("egress", NOW, number=DB).outcome == "horizon_dropped"
    assert manager.run("egress", NOW + 1, number=DB).outcome == "departure_set"


def test_a_time_that_the_sender_chose_stays_where_it_is_later(manager):
    manager.rate(MEGABYTE)
    own = NOW + SECOND
    assert manager.run("egress", NOW, number=DB, tstamp=own) == Result("sent_at_once", 0, own, 0)
    assert manager.last() == own
    assert manager.run("egress", NOW, number=DB, tstamp=NOW + 5).tstamp == own + len(FRAME) * 1000


def test_a_time_beyond_the_horizon_stops_nobody_else(manager):
    manager.rate(MEGABYTE)
    assert manager.run("egress", NOW, number=DB, tstamp=NOW + HORIZON).outcome == "horizon_dropped"
    assert manager.run("egress", NOW, number=DB).outcome == "sent_at_once"


def test_all_segments_of_a_large_packet_count(manager):
    manager.rate(MEGABYTE)
    wire = 43 * 1514
    manager.run("egress", NOW, number=DB, wire_len=wire, gso_segs=43)
    assert manager.run("egress", NOW, number=DB, wire_len=wire, gso_segs=43).tstamp == NOW + wire * 1000
    assert manager.traffic() == (86, 2 * wire, 0, 0)


def test_a_changed_rate_keeps_the_last_departure(manager):
    manager.rate(MEGABYTE)
    for _ in range(3):
        last = manager.run("egress", NOW, number=DB).tstamp
    manager.rate(10 * MEGABYTE)
    assert manager.run("egress", NOW, number=DB).tstamp == last + len(FRAME) * 100
    assert manager.traffic()[0] == 4


def test_endpoints_do_not_disturb_each_other(manager):
    manager.rate(MEGABYTE)
    manager.rate(2 * MEGABYTE, DB + 1)
    for _ in range(2):
        first, second = (manager.run("egress", NOW, number=number) for number in (DB, DB + 1))
    assert (first.tstamp - NOW, second.tstamp - NOW) == (len(FRAME) * 1000, len(FRAME) * 500)
    assert manager.traffic(DB + 1) == (2, 2 * len(FRAME), 0, 0)


@pytest.mark.parametrize("number", [ENDPOINT_FIRST + 1, ENDPOINT_LAST])
def test_every_number_has_a_departure(manager, number):
    manager.rate(MEGABYTE, number)
    manager.run("egress", NOW, number=number)
    assert manager.last(number) == NOW


def test_what_the_host_sends_is_its_endpoint_s(manager):
    manager.rate(MEGABYTE, ENDPOINT_HOST)
    assert manager.run("egress", NOW) == Result("sent_at_once", 0, 0, 0)
    assert manager.run("egress", NOW).tstamp == NOW + len(FRAME) * 1000
    assert manager.traffic(ENDPOINT_HOST)[0] == 2


@pytest.mark.parametrize("queue", [0, 1, ENDPOINT_FIRST - 1])
def test_what_is_forwarded_without_a_mark_is_nobody_s(manager, queue):
    """Whatever receive queue it came by, which stays for the choice of the device's queue."""
    manager.rate(MEGABYTE, ENDPOINT_HOST)
    for _ in range(2):
        result = manager.run("egress", NOW, number=queue, ingress_ifindex=LOOPBACK)
        assert result == Result("no_rate_passed", queue, 0, 0)


def test_an_endpoint_without_a_rate_passes(manager):
    manager.rate(MEGABYTE, DB + 1)
    assert manager.run("egress", NOW, number=DB, priority=3) == Result("no_rate_passed", 0, 0, 3)
    assert manager.traffic() == () or manager.traffic() == (0, 0, 0, 0)


@pytest.mark.parametrize("rate", [0, MEGABYTE])
def test_a_priority_with_and_without_a_rate(manager, rate):
    manager.rate(rate, priority=7)
    outcome = "sent_at_once" if rate else "no_rate_passed"
    assert manager.run("egress", NOW, number=DB, priority=3) == Result(outcome, 0, 0, 7)
    assert manager.traffic() == (1, len(FRAME), 0, 0)


# --- ingress ---


@pytest.fixture
def receiving(manager):
    """An endpoint that may get a megabyte a second, and three frames at once."""
    manager.endpoint()
    manager.rate(MEGABYTE, direction=RATE_INGRESS, burst=3 * len(FRAME))
    return manager


def outcomes(manager, now, count, program="ingress"):
    return [manager.run(program, now).outcome for _ in range(count)]


def test_a_burst_is_received_and_what_is_more_dropped(receiving):
    assert outcomes(receiving, NOW, 5) == ["received"] * 3 + ["rate_dropped"] * 2
    assert receiving.traffic(direction=RATE_INGRESS) == (3, 3 * len(FRAME), 2, 2 * len(FRAME))


def test_the_bucket_fills_with_the_rate(receiving):
    outcomes(receiving, NOW, 3)
    refill = len(FRAME) * 1000
    assert outcomes(receiving, NOW + refill - 1, 1) == ["rate_dropped"]
    assert outcomes(receiving, NOW + refill, 2) == ["received", "rate_dropped"]
    assert outcomes(receiving, NOW + 60 * SECOND, 4) == ["received"] * 3 + ["rate_dropped"]


def test_what_is_received_keeps_its_time(receiving):
    assert receiving.run("ingress", NOW, tstamp=7, number=5) == Result("received", 5, 7, 0)


def test_what_is_larger_than_the_burst_is_never_received(receiving):
    assert receiving.run("ingress", NOW, wire_len=3 * len(FRAME)).outcome == "received"
    assert receiving.run("ingress", NOW + SECOND, wire_len=3 * len(FRAME) + 1).outcome == "rate_dropped"


def test_directions_do_not_disturb_each_other(receiving):
    receiving.rate(MEGABYTE)
    for _ in range(2):
        result = receiving.run("egress", NOW, number=DB)
    assert result.tstamp == NOW + len(FRAME) * 1000
    assert outcomes(receiving, NOW, 4) == ["received"] * 3 + ["rate_dropped"]


def test_an_endpoint_without_a_rate_receives(manager):
    manager.endpoint()
    manager.rate(MEGABYTE)
    assert outcomes(manager, NOW, 3) == ["no_rate_passed"] * 3


def test_a_device_that_is_no_endpoint_s_receives(manager):
    assert outcomes(manager, NOW, 2) == ["unknown_device_passed"] * 2


# --- any sequence ---

RATES = st.sampled_from([1, 999, 12_500, MEGABYTE, 62_500_000, 12_500_000_000])
PACKETS = st.lists(
    st.tuples(
        st.integers(0, 4 * SECOND) | st.integers(0, 2_000_000),
        st.sampled_from([len(FRAME), 1600, 9014, 65_536]),
        st.none() | st.integers(0, 3 * SECOND),
        st.none() | RATES,
    ),
    min_size=1,
    max_size=40,
)
"""(pause, length on the wire, own time after now, new rate)"""
AS_ONE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@AS_ONE
@given(rate=RATES, packets=PACKETS)
def test_departures_of_any_sequence(manager, rate, packets):
    """The reference's formula, with a last departure that packets which are dropped leave alone."""
    now, last, number = NOW, 0, DB
    manager.set_last(0)
    manager.rate(rate)
    for pause, length, own, new_rate in packets:
        now += pause
        if new_rate is not None:
            rate = new_rate
            manager.rate(rate)
        stamp = 0 if own is None else now + own
        result = manager.run("egress", now, number=number, wire_len=length, tstamp=stamp)
        earliest = max(stamp, now)
        following = max(last + length * SECOND // rate, earliest)
        if following - now >= HORIZON:
            assert result.outcome == "horizon_dropped"
        else:
            last = following
            late = following > earliest
            assert (result.outcome, result.tstamp) == (
                ("departure_set", following) if late else ("sent_at_once", stamp)
            )
        assert manager.last() == last


@AS_ONE
@given(rate=RATES, packets=PACKETS, frames=st.integers(1, 100))
def test_the_bucket_of_any_sequence(receiving, rate, packets, frames):
    """A bucket of tokens, which the program does not have: `rate` a second fall in, `burst` are the most."""
    burst = frames * len(FRAME)
    receiving.set_last(0, direction=RATE_INGRESS)
    receiving.rate(rate, direction=RATE_INGRESS, burst=burst)
    # In billionths of a byte; the program's times are whole nanoseconds, which are as many tokens as the rate's bytes.
    now, tokens = NOW, burst * SECOND
    for count, (pause, length, _, _) in enumerate(packets, 1):
        now += pause
        tokens = min(burst * SECOND, tokens + pause * rate)
        outcome = receiving.run("ingress", now, wire_len=length).outcome
        if abs(tokens - length * SECOND) > count * rate:
            assert outcome == ("received" if tokens >= length * SECOND else "rate_dropped")
        if outcome == "received":
            tokens -= length * SECOND


# --- as they ship ---


def test_the_programs_that_ship(shipped):
    shipped.endpoint()
    # So slow that the time between two runs does not count.
    shipped.rate(1000, ENDPOINT_HOST, priority=6)
    shipped.rate(1000, direction=RATE_INGRESS, burst=2 * len(FRAME))
    assert [shipped.run("ingress").outcome for _ in range(3)] == ["received"] * 2 + ["rate_dropped"]
    assert shipped.run("mark").outcome == "endpoint_marked"
    before = time.monotonic_ns()
    first, second = shipped.run("egress"), shipped.run("egress")
    after = time.monotonic_ns()
    assert (first.outcome, second.outcome) == ("sent_at_once", "departure_set")
    assert before <= second.tstamp - len(FRAME) * SECOND // 1000 <= after
    assert first.priority == second.priority == 6
    assert shipped.run("egress", ingress_ifindex=LOOPBACK).outcome == "no_rate_passed"


def test_all_cpus_share_the_rate(shipped):
    """As many departures as there were packets, each one delay after another."""
    threads, each = 4, 200
    shipped.rate(MEGABYTE, ENDPOINT_HOST)
    ahead = time.monotonic_ns() + SECOND
    shipped.set_last(ahead, ENDPOINT_HOST)
    small = FRAME[:60]

    def send():
        for _ in range(each):
            run(shipped.programs["egress"], small, SkBuff(ifindex=LOOPBACK))

    started = [threading.Thread(target=send) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert shipped.last(ENDPOINT_HOST) == ahead + threads * each * len(small) * 1000
    assert shipped.traffic(ENDPOINT_HOST) == (threads * each, threads * each * len(small), 0, 0)
