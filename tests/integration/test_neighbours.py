"""A backend, or the gateway in front of it, moves to another MAC address: requests follow within a second."""

import signal
import time

import pytest

from integration.node import BACKENDS, VIP, document, get, service, web_server
from netns.topology import slowness, wait_for

MOVED = "02:00:00:00:aa:bb"
ANNOUNCE = "sysctl -qw net.ipv4.conf.eth0.arp_notify=1 net.ipv6.conf.eth0.ndisc_notify=1"


def works(node):
    try:
        return get(node.client, VIP, timeout=0.15)[0] == 200
    except OSError:
        return False


def outage(node, move):
    """Seconds from `move` to the next answer."""
    wait_for(lambda: works(node), 10, "an answer")
    time.sleep(1)
    move()
    moved = time.monotonic()
    wait_for(lambda: works(node), 20, "an answer after the move")
    return time.monotonic() - moved


@pytest.mark.parametrize("announced", [True, False])
def test_a_backend_moves(agent, announced):
    if announced:
        agent.backend.run(ANNOUNCE)
    with web_server(agent.backend, BACKENDS[0]):
        agent.apply(document(service(backends=BACKENDS[:1])))
        took = outage(agent, lambda: agent.backend.run(f"ip link set eth0 address {MOVED}"))
    assert took < slowness()


def test_a_backend_announces_its_move_while_no_executor_runs(agent):
    """The kernel's neighbours and the program's short memory are all that it takes."""
    agent.backend.run(ANNOUNCE)
    with web_server(agent.backend, BACKENDS[0]):
        agent.apply(document(service(backends=BACKENDS[:1])))
        agent.stop(signal.SIGKILL)
        took = outage(agent, lambda: agent.backend.run(f"ip link set eth0 address {MOVED}"))
    assert took < slowness()


@pytest.mark.parametrize("announced", [True, False])
def test_the_gateway_in_front_of_a_backend_moves(agent, announced):
    """The backend has an address that only the gateway leads to; requests go to the gateway's MAC address."""
    agent.backend.run("ip address add 10.66.0.1/32 dev lo")
    agent.lb.run(f"ip route add 10.66.0.0/16 via {BACKENDS[1]}")
    if announced:
        agent.backend.run(ANNOUNCE)
    with web_server(agent.backend, "10.66.0.1"):
        agent.apply(document(service(backends=["10.66.0.1"])))
        assert "10.66.0.1" not in agent.lb.run("ip neigh")
        took = outage(agent, lambda: agent.backend.run(f"ip link set eth0 address {MOVED}"))
    assert took < slowness()
