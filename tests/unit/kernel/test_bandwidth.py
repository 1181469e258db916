"""The bandwidth manager's programs on real devices, and fq where this kernel has it.

container eth0 10.8.0.2 -- 10.8.0.1 ve-c  node  eth0 10.9.0.1 -- 10.9.0.2 eth0 peer
container eth0 fd08::2  -- fd08::1  ve-c  node  eth0 fd09::1  -- fd09::2  eth0 peer
"""

import contextlib
import re
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from datapath.compile.bandwidth import FQ, MQ
from datapath.compile.layouts import (
    BANDWIDTH_DEPARTURES,
    BANDWIDTH_ENDPOINTS,
    BANDWIDTH_NATIVES,
    BANDWIDTH_OUTCOMES,
    BANDWIDTH_RATES,
    ENDPOINT_FIRST,
    ENDPOINT_HOST,
    RATE_EGRESS,
    RATE_INGRESS,
    BandwidthConfig,
    Departure,
    Rate,
    RateKey,
)
from datapath.compile.outcomes import BANDWIDTH_OUTCOMES as OUTCOMES
from datapath.kernel import Kernel, features, libbpf, qdisc
from datapath.kernel.bandwidth import DecidedMaps
from datapath.kernel.entries import Writer
from datapath.kernel.errors import KernelError
from datapath.kernel.pins import Pins
from datapath.plan import plan
from datapath.plan.operations import DeleteEntry, PutBandwidth, PutEntry, PutProgram, RemoveBandwidth, SetQdisc
from datapath.state.kernel_state import BandwidthPrograms, KernelState, Qdisc
from datapath.state.model import Hook, Program
from netns.topology import NetNS, kernel_at_least, veth, wait_for

DB = 4097
HORIZON = 2 * 10**9
CONFIG = bytes(BandwidthConfig(horizon=HORIZON))
ROUTES = bytes(BandwidthConfig(horizon=HORIZON, route=1))
PEER = {socket.AF_INET: "10.9.0.2", socket.AF_INET6: "fd09::2"}
HOPS = {socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL, 12), socket.AF_INET6: (socket.IPPROTO_IPV6, 16, 51)}
"""Level, option of what is sent (IPV6_UNICAST_HOPS), option by which what is received tells it (IPV6_RECVHOPLIMIT)."""
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
NEEDS_FQ = pytest.mark.skipif(not features.has("sch_fq"), reason="this kernel has no sch_fq")


@pytest.fixture
def kernel(pins):
    return Kernel(pins)


@pytest.fixture
def container(node, peer):
    """Behind ve-c of the node."""
    namespace = NetNS()
    veth(namespace, "eth0", node, "ve-c")
    namespace.run("ip address add 10.8.0.2/24 dev eth0")
    namespace.run("ip address add fd08::2/64 dev eth0 nodad")
    namespace.run("ip route add default via 10.8.0.1")
    namespace.run("ip route add default via fd08::1")
    node.run("ip address add 10.8.0.1/24 dev ve-c")
    node.run("ip address add fd08::1/64 dev ve-c nodad")
    node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    peer.run("ip route add 10.8.0.0/24 via 10.9.0.1")
    peer.run("ip route add fd08::/64 via fd09::1")
    yield namespace
    namespace.close()


def put(kernel, native=("eth0",), endpoints=("ve-c",), config=CONFIG):
    wanted = BandwidthPrograms(config, frozenset(native), frozenset(endpoints))
    kernel.execute([PutBandwidth(wanted)])
    return wanted


def entry(kernel, name, key, value):
    kernel.execute([PutEntry(name, bytes(key), bytes(value))])


def serve(kernel, direction=RATE_EGRESS, rate=10**9, burst=0):
    entry(kernel, BANDWIDTH_RATES, RateKey(DB, direction), Rate(rate, HORIZON, burst))
    claim(kernel)


def claim(kernel):
    """Let what is behind ve-c be an endpoint's."""
    entry(kernel, BANDWIDTH_NATIVES, struct.pack("=I", socket.if_nametoindex("eth0")), struct.pack("=I", 1))
    entry(kernel, BANDWIDTH_ENDPOINTS, struct.pack("=I", socket.if_nametoindex("ve-c")), struct.pack("=I", DB))


def pings(namespace, address="10.9.0.2", count=1):
    return " 0% packet loss" in namespace.run(f"ping -c {count} -i 0.01 -W 1 -n {address}", check=False)


def outcomes(kernel):
    return {OUTCOMES[index].name: packets for index, (packets, _) in kernel.counters(BANDWIDTH_OUTCOMES).items()}


def settle(*namespaces):
    """Without a link-local address of its own a router finds no neighbour of IPv6, and such a one takes a second."""

    def settled():
        return not any("tentative" in each.run("ip -6 address") for each in namespaces)

    wait_for(settled, what="duplicate address detection")


def forwarded():
    """Packets that this namespace's stack forwarded, of both families."""
    lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
    found = dict(zip(names, values))["ForwDatagrams"], dict(line.split() for line in lines)["Ip6OutForwDatagrams"]
    return sum(map(int, found))


def echoes(container, peer, family, contents):
    """Whether the peer sends back what the container sent it by TCP."""
    with peer:
        listener = socket.create_server((PEER[family], 7777), family=family)

    def serve():
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    server = threading.Thread(target=serve)
    server.start()
    with listener, container, socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect((PEER[family], 7777))
        sender = threading.Thread(target=lambda: (client.sendall(contents), client.shutdown(socket.SHUT_WR)))
        sender.start()
        received = b"".join(iter(lambda: client.recv(65536), b""))
        sender.join()
    server.join()
    return received == contents


def arrives_with(container, peer, family, hops):
    """Hops that are left where a datagram arrives that was sent with so many; None where it does not arrive."""
    level, send, receive = HOPS[family]
    with peer:
        sink = socket.socket(family, socket.SOCK_DGRAM)
    with container:
        source = socket.socket(family, socket.SOCK_DGRAM)
    with sink, source:
        sink.bind((PEER[family], 9999))
        sink.setsockopt(level, receive, 1)
        sink.settimeout(0.5)
        source.setsockopt(level, send, hops)
        source.sendto(b"x", (PEER[family], 9999))
        with contextlib.suppress(socket.timeout):
            ((_, _, value),) = sink.recvmsg(100, 100)[1]
            return struct.unpack("=i", value)[0]
    return None


@pytest.mark.usefixtures("hooks")
class TestBothHooks:
    def test_read_back(self, kernel, container):
        wanted = put(kernel)
        have = kernel.read()
        assert have.bandwidth == wanted
        assert dict(have.entries) == {BANDWIDTH_NATIVES: {}, BANDWIDTH_RATES: {}, BANDWIDTH_ENDPOINTS: {}}
        assert plan(KernelState(bandwidth=wanted), have).operations == ()
        assert pings(container)

    def test_the_mark_arrives_where_packets_leave(self, kernel, container):
        put(kernel)
        serve(kernel)
        assert pings(container, count=3)
        assert kernel.traffic()[bytes(RateKey(DB, RATE_EGRESS))].passed_packets == 3
        counted = outcomes(kernel)
        assert counted["endpoint_marked"] >= 3
        assert counted["sent_at_once"] + counted.get("departure_set", 0) == 3

    def test_what_the_host_sends_itself(self, kernel, container, node):
        put(kernel)
        entry(kernel, BANDWIDTH_RATES, RateKey(ENDPOINT_HOST, RATE_EGRESS), Rate(10**9, HORIZON))
        assert pings(node, count=2)
        before = kernel.traffic()[bytes(RateKey(ENDPOINT_HOST, RATE_EGRESS))].passed_packets
        assert before >= 2
        assert pings(container, count=20)
        # The host answers questions for its address now and then.
        assert kernel.traffic()[bytes(RateKey(ENDPOINT_HOST, RATE_EGRESS))].passed_packets < before + 10

    def test_what_the_container_receives(self, kernel, container, peer):
        put(kernel)
        began = time.monotonic()
        serve(kernel, RATE_INGRESS, rate=1000, burst=300)
        assert not pings(peer, "10.8.0.2", count=20)
        traffic = kernel.traffic()[bytes(RateKey(DB, RATE_INGRESS))]
        assert 200 < traffic.passed_bytes <= 300 + 1000 * (time.monotonic() - began)
        assert traffic.dropped_packets > 0

    def test_replaced_in_place_with_what_it_counted(self, kernel, container):
        put(kernel)
        serve(kernel)
        assert pings(container)
        wanted = put(kernel, config=bytes(BandwidthConfig(horizon=10**9)))
        assert pings(container)
        have = kernel.read()
        assert have.bandwidth == wanted
        assert len(have.entries[BANDWIDTH_RATES]) == 1
        assert kernel.traffic()[bytes(RateKey(DB, RATE_EGRESS))].passed_packets == 2

    def test_a_rate_that_goes_takes_its_counters_along(self, kernel, container):
        put(kernel)
        serve(kernel)
        assert pings(container)
        kernel.execute([DeleteEntry(BANDWIDTH_RATES, bytes(RateKey(DB, RATE_EGRESS)))])
        assert kernel.traffic() == {}
        assert pings(container)
        assert kernel.traffic() == {}

    def test_a_full_map_names_its_size(self, kernel, container, pins):
        put(kernel)
        room = DecidedMaps(Pins(pins), Writer()).info(BANDWIDTH_NATIVES).max_entries
        entries = [PutEntry(BANDWIDTH_NATIVES, struct.pack("=I", number), bytes(4)) for number in range(room + 1)]
        with pytest.raises(KernelError, match=rf"map {BANDWIDTH_NATIVES} is full \({room} entries\)") as caught:
            kernel.execute(entries)
        assert caught.value.operation is entries[-1]

    def test_a_device_that_comes_again_is_not_the_one_that_was(self, kernel, container, node):
        wanted = put(kernel)
        node.run("ip link del ve-c")
        have = kernel.read()
        assert have.bandwidth.endpoints == frozenset()
        veth(container, "eth0", node, "ve-c")
        assert plan(KernelState(bandwidth=wanted), kernel.read()).operations == (PutBandwidth(wanted),)
        put(kernel)
        assert kernel.read().bandwidth == wanted

    def test_a_missing_program_is_told(self, kernel, node, container, hooks, pins):
        wanted = put(kernel)
        if hooks == "tcx":
            (pins / "links" / "tc_bandwidth_endpoint_ingress_ve-c").unlink()
        else:
            node.run("tc filter del dev ve-c ingress")
        have = kernel.read()
        assert have.bandwidth.problems == {"ve-c": "tc_bandwidth_mark not attached"}
        assert plan(KernelState(bandwidth=wanted), have).operations == (PutBandwidth(wanted),)

    @FAMILIES
    def test_routed_by_the_programs(self, kernel, container, node, peer, family):
        settle(container, node, peer)
        put(kernel, config=ROUTES)
        serve(kernel)
        assert pings(container, PEER[family], count=3)
        assert echoes(container, peer, family, bytes(200_000))
        counted = outcomes(kernel)
        assert counted["endpoint_routed"] >= 6
        passed = kernel.traffic()[bytes(RateKey(DB, RATE_EGRESS))]
        assert passed.passed_packets >= counted["endpoint_routed"]
        assert passed.passed_bytes > 200_000
        before = forwarded()
        assert pings(container, PEER[family], count=3)
        # Only the answers went through the stack.
        assert forwarded() == before + 3

    @FAMILIES
    def test_every_router_takes_a_hop(self, kernel, container, node, peer, family):
        settle(container, node, peer)
        for config in (CONFIG, ROUTES):
            put(kernel, config=config)
            serve(kernel)
            assert [arrives_with(container, peer, family, hops) for hops in (64, 2, 1)] == [63, 1, None]

    def test_what_is_not_for_a_native_device_is_the_stack_s(self, kernel, container, node):
        node.run("ip route add prohibit 192.0.2.0/24")
        answers = [container.run(f"ping -c 1 -W 1 -n {to}", check=False) for to in ("10.9.0.1", "192.0.2.9")]
        assert " 0% packet loss" in answers[0]
        assert "Packet filtered" in answers[1]
        put(kernel, config=ROUTES)
        serve(kernel)
        for to, before in zip(("10.9.0.1", "192.0.2.9"), answers):
            after = container.run(f"ping -c 1 -W 1 -n {to}", check=False)
            assert after.splitlines()[1].partition("ttl")[0] == before.splitlines()[1].partition("ttl")[0]
        assert "endpoint_routed" not in {name for name, packets in outcomes(kernel).items() if packets}

    def test_the_rate_holds_where_the_programs_route(self, kernel, container, peer):
        """More than fq would keep is dropped, by the same mark."""
        put(kernel, config=ROUTES)
        began = time.monotonic()
        serve(kernel, rate=1000)
        assert not pings(container, count=40)
        traffic = kernel.traffic()[bytes(RateKey(DB, RATE_EGRESS))]
        assert traffic.passed_bytes <= 1000 * (2 + time.monotonic() - began) + 98
        assert traffic.dropped_packets > 10

    def test_remove_and_reset_leave_nothing(self, kernel, node, container, pins):
        for leave in (lambda: kernel.execute([RemoveBandwidth()]), kernel.reset):
            put(kernel)
            serve(kernel)
            leave()
            have = kernel.read()
            assert (have.bandwidth, dict(have.entries)) == (None, {})
            assert pings(container)
            assert "clsact" not in node.run("tc qdisc show")
        assert not pins.exists()


def test_all_devices_or_none(kernel, container):
    wanted = put(kernel)
    with pytest.raises(KernelError, match="there is no device zzz"):
        put(kernel, native=("eth0", "zzz"))
    assert kernel.read().bandwidth == wanted
    assert pings(container)


SO_TXTIME, SO_MAX_PACING_RATE = 61, 47


def send_at(container, when):
    """Send a datagram that is to leave at that time of CLOCK_MONOTONIC (SO_TXTIME, SCM_TXTIME)."""
    with container, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.setsockopt(socket.SOL_SOCKET, SO_TXTIME, struct.pack("=iI", time.CLOCK_MONOTONIC, 0))
        source.sendmsg([b"x"], [(socket.SOL_SOCKET, SO_TXTIME, struct.pack("=Q", when))], 0, ("10.9.0.2", 9999))


@pytest.mark.skipif(not kernel_at_least(6, 11), reason="this kernel has no departure times but TCP's")
@pytest.mark.parametrize("config", [CONFIG, ROUTES], ids=["stack", "programs"])
def test_a_departure_time_from_within_the_container_arrives(kernel, node, container, pins, config):
    put(kernel, config=config)
    serve(kernel)
    assert pings(container)
    when = time.monotonic_ns() + 10**9
    send_at(container, when)
    with libbpf.closing(libbpf.pinned(pins / "bandwidth_maps" / BANDWIDTH_DEPARTURES)) as fd:
        slot = struct.pack("=I", 2 * (DB - ENDPOINT_FIRST) + RATE_EGRESS)
        wait_for(lambda: Departure.from_buffer_copy(libbpf.map_lookup(fd, slot, 16)).last == when)


@pytest.fixture
def plain_veth(node, container):
    """The container's veth as the kernel makes it: with GRO at one end and no TSO at the other, packets would be taken
    off their account in between."""
    container.run("ethtool -K eth0 tx on tso on")
    node.run("ethtool -K ve-c gro off")


@pytest.mark.usefixtures("hooks", "plain_veth")
def test_what_the_programs_route_stays_on_its_socket_s_account(kernel, peer, container, pins, objects):
    program = Program("account", str(objects / "account.o"), "account", Hook.TC, device="eth0", direction="egress")
    frames = {}
    for config in (CONFIG, ROUTES):
        put(kernel, config=config)
        claim(kernel)
        kernel.execute([PutProgram(kernel.inspect_program(program))])
        upload(container, peer, 300_000, rate=2_000_000)
        frames[config] = counted(pins / "programs" / "account")
    assert frames[CONFIG][1] == 0 < frames[CONFIG][0]
    assert frames[ROUTES][0] == 0 < frames[ROUTES][1]


def counted(pin):
    """(frames on no account, frames on one) that program `account` has seen."""
    with libbpf.closing(libbpf.pinned(pin)) as fd:
        (number,) = libbpf.program_map_ids(fd)
    with libbpf.closing(libbpf.map_by_id(number)) as fd:
        return [struct.unpack("=Q", libbpf.map_lookup(fd, struct.pack("=I", key), 8))[0] for key in (0, 1)]


@NEEDS_FQ
@pytest.mark.usefixtures("plain_veth")
@pytest.mark.skipif(
    not features.has("tcp_bbr") or not features.has("delivery_time"), reason="this kernel has no BBR of endpoints"
)
def test_fq_paces_bbr_of_the_container_where_the_programs_route(kernel, node, peer, container):
    """It sees the socket, tells it, and gets packets with departure times; else TCP would pace by timers of its own."""
    kernel.execute([SetQdisc("eth0", FQ)])
    container.run("sysctl -qw net.ipv4.tcp_congestion_control=bbr")
    paced = {}
    for config in (CONFIG, ROUTES):
        put(kernel, config=config)
        claim(kernel)
        before = throttled(node)
        upload(container, peer, 300_000, rate=100_000)
        paced[config] = throttled(node) - before
    # An acknowledgement without data gets a time, too, whoever paces. Of a hundred packets, few have to wait each for
    # itself where the machine is so late that several are due at once.
    few = 3
    assert paced[CONFIG] <= few
    assert paced[ROUTES] > 2 * few


def upload(container, peer, size, rate):
    """Send by TCP, at a rate that the socket has been told (SO_MAX_PACING_RATE), and nothing back."""
    with peer:
        listener = socket.create_server(("10.9.0.2", 7777))
    with container:
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener, client:
        client.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
        client.settimeout(20)
        client.connect(("10.9.0.2", 7777))
        accepted, _ = listener.accept()
        sender = threading.Thread(target=client.sendall, args=(bytes(size),))
        sender.start()
        with accepted:
            while size > 0:
                size -= len(accepted.recv(65536))
        sender.join()


def throttled(node):
    """How often fq had to wait for a departure time."""
    shown = node.run("tc -s qdisc show dev eth0")
    return int(re.search(r"highprio \d+ throttled (\d+)", shown)[1])


def test_only_the_stack_s_packets_are_seen_by_netfilter(kernel, node, peer, container):
    """And all of a flow: also the first ones, for which the neighbour has to be found."""
    settle(container, node, peer)
    rules = "add table inet t; add chain inet t f { type filter hook forward priority 0; policy accept; }"
    rules += "; add rule inet t f iifname ve-c drop"
    with node:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    put(kernel)
    serve(kernel)
    assert not pings(container)
    put(kernel, config=ROUTES)
    node.run("ip neigh flush dev eth0")
    assert pings(container, count=3)
    assert pings(container, "fd09::2", count=3)


# --- qdiscs ---


def test_qdiscs_of_others_are_told_from_the_kernel_s_own(kernel, node):
    assert kernel.read().qdiscs["eth0"] == Qdisc("noqueue", "kernel")
    node.run("tc qdisc add dev eth0 root handle 7: tbf rate 1mbit burst 10k latency 50ms")
    assert kernel.read().qdiscs["eth0"] == Qdisc("tbf 7:", "other")
    kernel.execute([SetQdisc("eth0", "")])
    assert kernel.read().qdiscs["eth0"] == Qdisc("tbf 7:", "other")


@pytest.mark.skipif(features.has("sch_fq"), reason="this kernel has sch_fq")
def test_without_fq_the_operation_fails_in_words_and_leaves_what_was(kernel, node):
    with pytest.raises(KernelError, match="qdisc fq at eth0"):
        kernel.execute([SetQdisc("eth0", FQ)])
    assert kernel.read().qdiscs["eth0"] == Qdisc("noqueue", "kernel")


@NEEDS_FQ
def test_fq_is_read_back_healed_and_removed(kernel, node):
    before = kernel.read().qdiscs["eth0"]
    want = KernelState(qdiscs={"eth0": Qdisc(FQ, "ours")})
    kernel.execute(plan(want, kernel.read()).operations)
    assert plan(want, kernel.read()).operations == ()
    assert "fq" in node.run("tc qdisc show dev eth0")
    node.run("tc qdisc change dev eth0 root handle ebf0: fq horizon 1s")
    assert kernel.read().qdiscs["eth0"] == Qdisc("fq with other options", "ours")
    kernel.execute(plan(want, kernel.read()).operations)
    assert plan(want, kernel.read()).operations == ()
    kernel.execute(plan(KernelState(), kernel.read()).operations)
    assert kernel.read().qdiscs["eth0"] == before


@NEEDS_FQ
def test_mq_has_fq_at_every_queue(kernel, node):
    node.run("ip link add wide numtxqueues 4 numrxqueues 4 type veth peer name wide-peer numtxqueues 4 numrxqueues 4")
    node.run("ip link set wide up")
    node.run("ip link set wide-peer up")
    want = KernelState(qdiscs={"wide": Qdisc(MQ, "ours")})
    kernel.execute(plan(want, kernel.read()).operations)
    assert plan(want, kernel.read()).operations == ()
    assert node.run("tc qdisc show dev wide").count("qdisc fq ") == 4
    node.run("tc qdisc replace dev wide parent ebf0:2 pfifo")
    assert kernel.read().qdiscs["wide"].text.startswith("mq, 3 of 4")
    kernel.execute(plan(want, kernel.read()).operations)
    assert plan(want, kernel.read()).operations == ()
    kernel.execute([SetQdisc("wide", FQ)])
    assert kernel.read().qdiscs["wide"] == Qdisc(FQ, "ours")
    kernel.execute([SetQdisc("wide", "")])
    assert kernel.read().qdiscs["wide"].owner == "kernel"


def test_every_device_s_qdisc_is_read(kernel, node):
    assert qdisc.read().keys() >= {"eth0"}
