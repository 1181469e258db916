"""Next hops are remembered for a moment: a neighbour or a route that changes is followed within that time."""

import ipaddress
import os
import time

import pytest
from scapy.layers.l2 import Ether

from bpf.rig import (
    BACKEND_MACS,
    CLIENT_MAC,
    DSR,
    GATEWAY,
    LOST,
    NEXTHOPS,
    ROUTER_MAC,
    SIDES,
    VERDICTS,
    WEB,
    reply,
    request,
)
from bpf.test_dsr import DISPATCHES, configure, host_of
from datapath.kernel.clock import jiffies_hz

AGE = 0.25
OTHER_MAC = "02:00:00:00:01:99"
BOTH = pytest.mark.parametrize("version", [4, 6])


def jiffies(seconds):
    return round(seconds * jiffies_hz())


def wait():
    """Until no answer from before may be used any more."""
    time.sleep(AGE + 2 / jiffies_hz())


@pytest.fixture(autouse=True)
def forgotten(rig):
    """What these tests have the program remember for an hour goes with them. Every CPU remembers its own: they run on
    one.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    rig.forget_nexthops()
    yield
    rig.forget_nexthops()
    os.sched_setaffinity(0, before)


@pytest.fixture
def remembering(rig):
    rig.configure(nexthop_age=jiffies(AGE))
    return rig


@pytest.fixture
def neighbour(rig):
    """Change a neighbour for the time of a test."""
    changed = []

    def change(address, mac, device="out0"):
        before = rig.node.run(f"ip neighbour show {address} dev {device}").split()
        changed.append((address, device, before[before.index("lladdr") + 1] if "lladdr" in before else None))
        rig.node.run(f"ip neighbour replace {address} lladdr {mac} dev {device} nud permanent")

    yield change
    for address, device, mac in changed:
        if mac:
            rig.node.run(f"ip neighbour replace {address} lladdr {mac} dev {device} nud permanent")
        else:
            rig.node.run(f"ip neighbour del {address} dev {device}")


def mac_of(result):
    return Ether(result.frame).dst


@BOTH
def test_moved_backend_is_followed(remembering, neighbour, version):
    rig = remembering
    host = host_of(version, "tcp", port=WEB)
    assert mac_of(rig.run(request(version))) == BACKEND_MACS[host]
    neighbour(SIDES[version].backend.format(host), OTHER_MAC)
    wait()
    assert mac_of(rig.run(request(version, flags="A"))) == OTHER_MAC


@BOTH
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_moved_backend_is_followed_with_direct_server_return(rig, neighbour, version, dispatch):
    configure(rig, dispatch, nexthop_age=jiffies(AGE))
    host = host_of(version, "tcp")
    assert mac_of(rig.run(request(version, port=DSR))) == BACKEND_MACS[host]
    neighbour(SIDES[version].backend.format(host), OTHER_MAC)
    wait()
    assert mac_of(rig.run(request(version, port=DSR))) == OTHER_MAC


@BOTH
def test_moved_client_is_followed(remembering, neighbour, version):
    rig = remembering
    answer = reply(version, rig.run(request(version)))
    assert mac_of(rig.run(answer, "out0")) == CLIENT_MAC
    neighbour(SIDES[version].client, OTHER_MAC, "in0")
    wait()
    assert mac_of(rig.run(answer, "out0")) == OTHER_MAC


@BOTH
def test_backend_that_is_resolved_later(remembering, neighbour, version):
    rig = remembering
    assert rig.run(request(version, port=LOST)).outcome == "no_neighbour_dropped"
    neighbour(SIDES[version].backend.format(99), OTHER_MAC)
    wait()
    assert mac_of(rig.run(request(version, port=LOST))) == OTHER_MAC


@BOTH
def test_route_that_goes(remembering, version):
    rig = remembering
    prefix = f"{SIDES[version].gateway.format(0)}/{ {4: 24, 6: 64}[version] }"
    via = SIDES[version].backend.format(12)
    assert rig.run(request(version, port=GATEWAY)).outcome == "request_new_flow"
    rig.node.run(f"ip route del {prefix}")
    try:
        wait()
        assert rig.run(request(version, port=GATEWAY, flags="A")).verdict == "drop"
    finally:
        rig.node.run(f"ip route add {prefix} via {via}")
    wait()
    assert rig.run(request(version, port=GATEWAY, flags="A")).outcome == "request_forwarded"


@BOTH
def test_what_is_remembered_is_used(rig, neighbour, version):
    """Or the tests above would show nothing."""
    rig.configure(nexthop_age=jiffies(3600))
    host = host_of(version, "tcp", port=WEB)
    rig.run(request(version))
    neighbour(SIDES[version].backend.format(host), OTHER_MAC)
    assert mac_of(rig.run(request(version, flags="A"))) == BACKEND_MACS[host]
    rig.configure(nexthop_age=jiffies(AGE))
    wait()
    assert mac_of(rig.run(request(version, flags="A"))) == OTHER_MAC


@BOTH
def test_another_device_asks_anew(rig, neighbour, version):
    """Rules may depend on where a packet came in."""
    rig.configure(nexthop_age=jiffies(3600))
    host = host_of(version, "tcp", port=WEB)
    rig.run(request(version), "in0")
    neighbour(SIDES[version].backend.format(host), OTHER_MAC)
    assert mac_of(rig.run(request(version, flags="A"), "out0")) == OTHER_MAC


MANY = {4: ("20.0.0.0/8", "198.51.100.254"), 6: ("fd14::/16", "fd01::fe")}
"""Networks of clients, and the router before them."""


@pytest.fixture
def many_clients(rig, version):
    network, router = MANY[version]
    rig.node.run(f"ip route add {network} via {router}")
    yield ipaddress.ip_network(network)
    rig.node.run(f"ip route del {network}")


@BOTH
def test_clients_do_not_get_each_others(rig, version, many_clients):
    """More clients behind the router than there are places, and one that is on link."""
    rig.configure(nexthop_age=jiffies(3600))
    places = len(rig.entries(NEXTHOPS)) // 2
    own = reply(version, rig.run(request(version, sport=29999)))
    first = request(version, source=str(many_clients[1]), sport=1024)
    answer = reply(version, rig.run(first))
    address, sport, dport = {4: (26, 34, 36), 6: (22, 54, 56)}[version]
    right = 0
    for number in range(2 * places):
        # A port of its own finds the client's flow again; nobody looks at checksums.
        port = (1024 + number).to_bytes(2, "big")
        client = many_clients[number + 1].packed
        frame, back = bytearray(first), bytearray(answer)
        frame[address : address + len(client)], frame[sport : sport + 2] = client, port
        back[dport : dport + 2] = port
        rig.push(bytes(frame))
        verdict, output = rig.push(bytes(back), "out0")
        # The port's backend is not always the one that answers here.
        if VERDICTS[verdict] == "redirect":
            right += 1
            assert Ether(output).dst == ROUTER_MAC
        assert Ether(rig.push(own, "out0")[1]).dst == CLIENT_MAC
    assert right > places // 2
