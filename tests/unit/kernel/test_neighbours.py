import ipaddress
import json
import time

import pytest

from datapath.kernel import neighbours
from datapath.state.facts import NextHop
from datapath.state.kernel_state import Neighbour
from netns.topology import slowness, wait_for

PEER4, PEER6 = ipaddress.ip_address("10.9.0.2"), ipaddress.ip_address("fd09::2")


def address(text):
    return ipaddress.ip_address(text)


@pytest.fixture(params=["managed", "refreshed"])
def way(request, monkeypatch):
    """As this kernel does it, and as one without NTF_EXT_MANAGED has it done."""
    if request.param == "managed" and not neighbours.managed_supported():
        pytest.skip("this kernel keeps no neighbours resolved by itself")
    if request.param == "refreshed":
        monkeypatch.setattr(neighbours, "managed_supported", lambda: False)
    return request.param


def test_next_hops(node):
    node.run("ip route add 10.20.0.0/16 via 10.9.0.2")
    node.run("ip route add 10.30.0.0/16 via inet6 fd09::2")
    node.run("ip route add fd20::/64 via fd09::2")
    node.run("ip route add blackhole 10.40.0.0/16")
    answers = {
        "10.9.0.77": NextHop("eth0", address("10.9.0.77")),
        "10.20.1.1": NextHop("eth0", PEER4),
        "10.30.1.1": NextHop("eth0", PEER6),
        "fd09::5": NextHop("eth0", address("fd09::5")),
        "fd20::1": NextHop("eth0", PEER6),
    }
    no_route = ["10.9.0.1", "127.0.0.1", "::1", "10.40.0.1", "192.168.1.1", "fd30::1"]
    found = neighbours.next_hops([address(text) for text in [*answers, *no_route]])
    assert found == {address(text): hop for text, hop in answers.items()}


def test_twenty_thousand_next_hops_take_seconds_at_most(node):
    started = time.monotonic()
    node.run("ip route add default via 10.9.0.2")
    targets = [ipaddress.ip_address(0x0B000000 + number) for number in range(20_000)]
    assert len(neighbours.next_hops(targets)) == 20_000
    assert time.monotonic() - started < 5 * slowness()


@pytest.mark.parametrize("target", [PEER4, PEER6])
def test_resolved_without_traffic_and_only_ours_are_read(node, peer, way, target):
    node.run("ip neigh add 10.9.0.99 dev eth0 lladdr 02:00:00:00:00:99 extern_learn")
    ours = Neighbour("eth0", target)
    neighbours.add([ours])
    mac = json.loads(peer.run("ip -json link show eth0"))[0]["address"]
    wait_for(lambda: mac in node.run(f"ip neigh show {target}"), what="the neighbour's resolution")
    assert ("managed" in node.run(f"ip neigh show {target}")) is (way == "managed")
    assert neighbours.read() == frozenset({ours})
    neighbours.remove([ours])
    assert neighbours.read() == frozenset()
    assert "10.9.0.99" in node.run("ip neigh show")


def test_an_entry_that_traffic_made_becomes_ours(node, way):
    node.run("ping -c 1 -W 1 10.9.0.2")
    neighbours.add([Neighbour("eth0", PEER4)])
    assert neighbours.read() == frozenset({Neighbour("eth0", PEER4)})
    assert "lladdr" in node.run("ip neigh show 10.9.0.2")


def test_refresh_resolves_what_was_not_there_before(node, peer, way):
    if way == "managed":
        # The kernel's own period is seconds; here only that `refresh` does no harm.
        neighbours.add([Neighbour("eth0", PEER4)])
        neighbours.refresh()
        assert "managed" in node.run("ip neigh show 10.9.0.2")
        return
    late = Neighbour("eth0", address("10.9.0.3"))
    neighbours.add([late])
    wait_for(lambda: "FAILED" in node.run("ip neigh show 10.9.0.3"), what="failing")
    peer.run("ip address add 10.9.0.3/24 dev eth0")
    neighbours.refresh()
    wait_for(lambda: "lladdr" in node.run("ip neigh show 10.9.0.3"), what="the neighbour's resolution")


def test_a_device_that_is_not_there(node):
    with pytest.raises(OSError, match=r"10\.9\.0\.2: there is no device zzz"):
        neighbours.add([Neighbour("zzz", PEER4)])
    neighbours.remove([Neighbour("zzz", PEER4), Neighbour("eth0", PEER4)])


def test_thousands_of_neighbours(node):
    many = [Neighbour("eth0", ipaddress.ip_address(0x0A090000 + number)) for number in range(10, 3010)]
    started = time.monotonic()
    neighbours.add(many)
    assert neighbours.read() == frozenset(many)
    assert time.monotonic() - started < 5 * slowness()


def test_macs_are_of_resolved_neighbours_whoever_entered_them(node):
    node.run("ip neighbour add 10.9.0.50 lladdr 02:00:00:00:00:50 dev eth0 nud stale")
    node.run("ip neighbour add fd09::50 lladdr 02:00:00:00:00:51 dev eth0 nud permanent")
    node.run("ip neighbour add 10.9.0.51 lladdr 02:00:00:00:00:52 dev eth0 nud failed")
    found = neighbours.macs()
    assert found[NextHop("eth0", address("10.9.0.50"))] == "02:00:00:00:00:50"
    assert found[NextHop("eth0", address("fd09::50"))] == "02:00:00:00:00:51"
    assert NextHop("eth0", address("10.9.0.51")) not in found
