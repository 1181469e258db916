"""The harness works, and the figures that do not jitter are as good as the committed ones. Times gate nothing.

The tables are shown (pytest -s), as the last thing that a run tells about the speed.
"""

import copy
import json
import os
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from bench import __main__ as command
from bench import cases, figures, floors, frames, harness, live, measure, node, programs, steps, wire
from bench.wrapper import Order, Traffic, Wrapper

SHORT = programs.BUILD / "short"
CASES = 18 + 3 * 12
"""Of SNAT and of passing; of each dispatch of direct server return."""
FORWARDERS = ["tx", "slb", "load balancer", "load balancer at tc", "kernel forwarding", "nft DNAT"]
ALL_PACKETS = 3
"""ETH_P_ALL."""
SO_RCVBUFFORCE = 33

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")


@pytest.fixture(scope="module")
def report():
    found = harness.run(harness.SHORT, None, lambda text: None)
    print()
    command.show(found, SHORT)
    return found


def test_nothing_that_does_not_jitter_got_worse(report):
    worse, remarks = figures.compare(report["figures"], json.loads(figures.BASELINE.read_text()))
    print("\n" + "\n".join(remarks))
    assert worse == []


def test_every_case_and_job_is_in_the_report(report):
    assert {row["program"] for row in report["packets"]} == {"min", "slb", "load balancer"}
    assert len(report["packets"]) == 3 * CASES
    assert {row["map_writes"] == 0 for row in report["executor"] if "nothing to change" in row["job"]} == {True}


def test_tc_and_the_wire_are_in_the_report_or_it_says_what_is_missing(report):
    missing = " ".join(report["left_out"])
    if "tc and wire" in missing:
        assert report["hooks"] + report["wire"] == []
        return
    assert len(report["hooks"]) == 5
    kinds = [(wire.ONE_CORE, "one flow"), (wire.ONE_CORE, "128k flows at random"), (wire.OWN_CORE, "one flow")]
    expected = {
        (*kind, name)
        for kind in kinds
        for name in FORWARDERS
        if not (kind[0] == wire.OWN_CORE and wire.OWN_CORE in missing) and name not in missing
    }
    rows = {(row["cores"], row["traffic"], row["program"]): row for row in report["wire"]}
    assert rows.keys() == expected
    for row in rows.values():
        assert row["mpps"] > 0
        assert 0 <= row["generator_waits"] < 1
        assert (row["goal"] is not None) == (row["program"] == "load balancer")


def test_files_are_written(report):
    assert json.loads((SHORT / "bench.json").read_text()) == report
    bars = ElementTree.parse(SHORT / "packets.svg").iter("{http://www.w3.org/2000/svg}rect")
    assert len(list(bars)) == 1 + 2 * CASES


@pytest.fixture(scope="module")
def bench():
    with node.converged() as one, Wrapper() as wrapper, floors.loaded() as yardsticks:
        yield measure.Bench(one, wrapper, yardsticks, harness.SHORT)


def test_a_frame_is_the_same_on_every_repeat(bench):
    """Encapsulated once, also the thousandth time; the kernel alone would encapsulate what it had encapsulated."""
    traffic = next(iter(cases.established(bench.node.devices))).traffic
    bench.wrapper.choose(bench.slb.program)
    _, once, _ = bench.wrapper.run(traffic, 1)
    _, often, _ = bench.wrapper.run(traffic, 1000)
    assert len(once) == len(traffic.frame) + 20
    assert often == once


def test_flows_differ_as_they_are_told_to(bench):
    first = next(iter(cases.established(bench.node.devices))).traffic
    bench.wrapper.choose(bench.tx.program)
    for order, seen in ((Order.SEQUENTIAL, 4), (Order.FRESH, 64)):
        traffic = Traffic(first.frame, first.device, flows=4, order=order)
        frames = {bench.wrapper.run(traffic, 1 + each % 4)[1] for each in range(64)}
        assert len(frames) == seen


def test_a_case_that_takes_another_way_is_no_result(bench):
    case = next(iter(cases.not_a_vip(bench.node.devices)))
    wrong = copy.copy(case)
    object.__setattr__(wrong, "outcome", "request_forwarded")
    target = measure.Target("load balancer", bench.node.program)
    assert len(bench.measure(case, [target])) == 1
    with pytest.raises(measure.OutcomeError, match="0 of 20000"):
        bench.measure(wrong, [target])


@pytest.mark.parametrize("name", harness.STEPS_KNOWN)
def test_steps_do_what_the_load_balancer_does(bench, name):
    case = next(each for each in cases.established(bench.node.devices) if each.name == name)
    bench.measure(case, [measure.Target("load balancer", bench.node.program)])
    with steps.loaded(bench.node, fresh=False) as targets:
        steps.check(bench, case, targets)


@pytest.fixture(scope="module")
def generator():
    with live.Generator() as made:
        yield made


@pytest.fixture
def bare(generator):
    """A forwarder that sends frames back as they came."""
    with floors.loaded() as yardsticks, wire.yardstick(yardsticks["tx"]) as made:
        try:
            live.require(generator, made)
        except live.MissingError as e:
            pytest.skip(str(e))
        yield made


@pytest.fixture
def deaf(generator, bare):
    """A forwarder that forwards nothing."""
    with wire.namespaces("nothing") as made:
        yield made


@contextmanager
def packets(namespace):
    """A socket that sees what arrives in a namespace."""
    with namespace:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PACKETS))
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 23)
        opened.settimeout(5)
        yield opened


def received(opened, count):
    """So many UDP packets; devices' own words left out."""
    found = []
    while len(found) < count:
        packet = Ether(opened.recv(2048))
        if UDP in packet and packet[UDP].dport == node.PORT:
            found.append(packet)
    return found


def test_live_frames_all_come_back(generator, bare):
    with generator.sink(bare):
        for window in (live.NO_WINDOW, live.WINDOW):
            sample = generator.send(bare, bare.requests("out0", frames.datagram("out0")), 5000, window)
            assert 5000 == sample.sent == sample.turns
            assert sample.sent <= sample.counted < sample.sent + 20
            assert abs(sample.bytes - 64 * sample.counted) < 2000


def test_live_frames_are_those_of_many_flows_with_right_checksums(generator, deaf):
    """Also where the source address differs, and behind those that others have written to."""
    traffic = deaf.requests("out0", frames.datagram("out0"), flows=cases.MANY, order=Order.MIXED)
    with packets(deaf.namespace) as opened:
        generator.send(deaf, traffic, 500)
        seen = received(opened, 500)
    assert len({(packet[IP].src, packet[UDP].sport) for packet in seen}) > 450
    assert len({packet[IP].src for packet in seen}) == cases.MANY >> 14
    for packet in seen:
        fresh = packet.copy()
        del fresh[IP].chksum
        assert Ether(bytes(fresh))[IP].chksum == packet[IP].chksum
        assert len(packet) == 64


def test_generator_sends_no_more_than_a_window(generator, deaf):
    sample = generator.send(deaf, deaf.requests("out0", frames.datagram("out0")), 1000, live.WINDOW)
    assert (sample.sent, sample.counted) == (live.WINDOW, 0)
    assert sample.turns > 1000


def test_lost_frames_are_no_result(generator, deaf):
    rounds = wire.Rounds(generator, [deaf], replace(harness.SHORT, rounds=1))
    with generator.sink(deaf), pytest.raises(wire.WireError, match="nothing"):
        rounds.measured(wire.ONE_CORE)


def test_nft_spreads_flows_over_all_backends_and_keeps_them(generator, bare):
    with ExitStack() as stack:
        try:
            forwarder = stack.enter_context(wire.nft())
        except live.MissingError as e:
            pytest.skip(str(e))
        traffic = forwarder.requests("out0", frames.datagram("out0"), flows=1024)
        opened = stack.enter_context(packets(forwarder.peer))
        generator.send(forwarder, traffic, 2048)
        sent = [(packet[UDP].sport, packet[IP].dst) for packet in received(opened, 2048)]
    backends = dict(sent)
    assert len(backends) == 1024
    assert set(backends.values()) == {node.backend(4, number) for number in node.BACKENDS}
    assert all(backends[port] == address for port, address in sent)


FIGURES = {
    "toolchain": "here",
    "verifier": {"verified": 1000, "instructions": 100},
    "helpers": {"one": {"map_lookup_elem": 3, "fib_lookup": 1}},
}
BASELINE = {"verifier": {"here": FIGURES["verifier"]}, "helpers": FIGURES["helpers"]}


@pytest.mark.parametrize(
    ("path", "value", "worse", "remarked"),
    [
        (("verifier", "verified"), 1000, 0, 0),
        (("verifier", "verified"), 1100, 0, 0),
        (("verifier", "verified"), 1101, 1, 0),
        (("verifier", "verified"), 800, 0, 1),
        (("helpers", "one", "map_lookup_elem"), 4, 1, 0),
        (("helpers", "one", "map_lookup_elem"), 2, 0, 1),
        (("helpers", "one"), {"map_lookup_elem": 2, "fib_lookup": 2}, 1, 0),
        (("helpers",), {}, 1, 0),
        (("helpers", "two"), {}, 1, 0),
        (("toolchain",), "elsewhere", 0, 1),
    ],
)
def test_comparison(path, value, worse, remarked):
    changed = copy.deepcopy(FIGURES)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = figures.compare(changed, BASELINE)
    assert (len(found[0]), len(found[1])) == (worse, remarked)
