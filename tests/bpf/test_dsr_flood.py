"""A flood of SYNs, each another client's, evicts no established flow and lets no map grow."""

import pytest

from bench.wrapper import Order, Traffic, Wrapper
from bpf.rig import CHOICE_MAPS, DSR, FLOW_MAPS, FRAGMENTS, SIDES, ether, ip, l4
from bpf.test_dsr import DISPATCHES, configure
from bpf.test_dsr_choices import NEW, OLD, backend_of, move

SYNS = 5_000_000
ESTABLISHED = 2000
"""Half of what fits into the map."""
LENGTHS = {4: 64, 6: 80}
CLIENTS = {4: "198.18.0.0", 6: "2001:2::"}
"""For benchmarks (RFC 2544, RFC 5180)."""


@pytest.fixture(scope="module")
def wrapper():
    with Wrapper() as made:
        yield made


def syn(version):
    """A SYN whose length is a multiple of 8, as the wrapper wants it."""
    head = ether() / ip(version, CLIENTS[version], SIDES[version].vip) / l4("tcp", 1024, DSR, "S")
    return bytes(head) + bytes(LENGTHS[version] - len(head))


def flood(rig, wrapper, frame, count):
    """Outcome -> packets, of a flood."""
    before = rig.outcomes()
    wrapper.choose(rig.program)
    wrapper.run(Traffic(frame, rig.devices["in0"], order=Order.FRESH), count)
    after = rig.outcomes()
    return {name: n - before.get(name, (0, 0))[0] for name, (n, _) in after.items() if n != before.get(name, (0, 0))[0]}


def sizes(rig):
    """Map -> (entries, most that it can have)."""
    return {name: (len(rig.entries(name)), rig.most_entries(name)) for name in (*FLOW_MAPS, *CHOICE_MAPS, FRAGMENTS)}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_established_flows_survive(rig, wrapper, version, dispatch):
    """In slots that moved, where alone something is remembered: all of them here."""
    configure(rig, dispatch)
    move(rig, version)
    tcp_records, _ = CHOICE_MAPS
    ports = range(20000, 20000 + ESTABLISHED)
    for sport in ports:
        rig.push(bytes(ether() / ip(version, SIDES[version].client, SIDES[version].vip) / l4("tcp", sport, DSR, "A")))
    established = set(rig.entries(tcp_records))
    assert len(established) == ESTABLISHED
    count = SYNS if dispatch == "opt" else SYNS // 10
    assert flood(rig, wrapper, syn(version), count) == {"request_new_flow": count}
    assert set(rig.entries(tcp_records)) == established
    for name, (entries, most) in sizes(rig).items():
        assert entries <= most, name
        assert (entries > 0) == (name in CHOICE_MAPS), name
    if dispatch == "opt":
        for sport in list(ports)[::100]:
            assert backend_of(rig, version, sport=sport, flags="A") == OLD
            assert backend_of(rig, version, sport=sport, flags="S", source=SIDES[version].far_client) == NEW


@pytest.mark.parametrize("version", [4, 6])
def test_where_slots_stay_nothing_is_remembered(rig, wrapper, version):
    configure(rig, "opt")
    assert flood(rig, wrapper, syn(version), SYNS // 10) == {"request_new_flow": SYNS // 10}
    assert rig.records() == {}


@pytest.mark.parametrize("version", [4, 6])
def test_udp_flood(rig, wrapper, version):
    """What any single packet can enter shares a map, apart from connections."""
    configure(rig, "opt")
    move(rig, version)
    move(rig, version, "udp")
    assert backend_of(rig, version, flags="A") == OLD
    established = rig.entries(CHOICE_MAPS[0])
    head = ether() / ip(version, CLIENTS[version], SIDES[version].vip) / l4("udp", 1024, DSR)
    frame = bytes(head) + bytes(LENGTHS[version] - len(head))
    assert flood(rig, wrapper, frame, SYNS // 10) == {"request_forwarded": SYNS // 10}
    assert rig.entries(CHOICE_MAPS[0]) == established
    entries, most = sizes(rig)[CHOICE_MAPS[1]]
    assert 0 < entries <= most
