"""Forwarding modes and accelerations of a real agent, with a backend that answers clients itself."""

import pytest

from datapath.compile.layouts import NodeConfig
from datapath.kernel import Kernel
from datapath.plan.operations import PutNode, RemoveNode
from datapath.state.kernel_state import NodePrograms
from integration.node import BACKENDS, VIP, answers, document, service, web_servers
from netns.topology import bpffs, wait_for

ANNOUNCED = [
    document(service(), mode="dsr"),
    document(service(port=80), mode="hybrid", dsr_dispatch="ipip", rss_ipv4_src_cidr="10.200.0.0/16"),
    document(service(), acceleration="disabled"),
    document(service(mode="dsr"), mode_annotation=True, dsr_dispatch="geneve"),
    document(dsr_backend=True),
    document(service(), lb_peers=["198.51.100.1", "198.51.100.9"]),
    document(service(), lb_peers=["198.51.100.8", "198.51.100.9", "198.51.100.1"]),
    document(service()),
]


@pytest.fixture
def backend(agent, tmp_path):
    """The agent's backend, which answers clients itself."""
    config = NodeConfig(enable_ipv4=1, enable_ipv6=1, enable_opt=1, enable_ipip=1, enable_geneve=1)
    with bpffs(tmp_path / "backend") as mounted, agent.backend:
        kernel = Kernel(mounted / "datapath")
        kernel.execute([PutNode(NodePrograms(bytes(config), frozenset({"eth0"})))])
        agent.backend.run(f"ip address add {VIP}/32 dev lo")
        yield kernel
        kernel.execute([RemoveNode()])


def test_what_is_announced_is_done_and_needs_nothing_more(agent):
    for wanted in ANNOUNCED:
        announced = agent.check(wanted)
        done = agent.apply(wanted)
        assert done["operations"] == announced["operations"]
        again = agent.apply(wanted)
        assert (again["changed"], again["map_writes"]) == (False, 0)


def test_a_change_of_mode_is_forecast(agent):
    agent.apply(document(service()))
    notes = agent.check(document(service(), mode="dsr"))["disruption"]["notes"]
    assert "web/TCP changes to DSR: its established flows end" in notes


@pytest.mark.parametrize("acceleration", ["native", "disabled"])
@pytest.mark.parametrize("dispatch", ["opt", "ipip", "geneve"])
def test_backends_answer_clients_themselves(agent, backend, acceleration, dispatch):
    # IP tunnels lead to the frontend's own address and port.
    port, expected = (8080, {VIP}) if dispatch == "ipip" else (80, set(BACKENDS[:2]))
    wanted = service(frontends=[f"{VIP}:{port}/TCP"])
    with web_servers(agent.backend, *BACKENDS[:2], VIP):
        agent.apply(document(wanted, mode="dsr", dsr_dispatch=dispatch, acceleration=acceleration))
        wait_for(lambda: answers(agent.client, VIP, 1, port), what="a first answer")
        assert answers(agent.client, VIP, 20, port) == expected
    assert agent.ask("service", "list")["services"][0]["mode"] == "dsr"
    assert agent.ask("ct", "list")["flows"] == []


def test_balanced_at_tc(agent):
    with web_servers(agent.backend, *BACKENDS[:2]):
        agent.apply(document(service(), acceleration="disabled"))
        wait_for(lambda: answers(agent.client, VIP, 1), what="a first answer")
        assert answers(agent.client, VIP, 20) == set(BACKENDS[:2])
        agent.apply(document(service()))
        assert answers(agent.client, VIP, 20) == set(BACKENDS[:2])


def test_a_backend_s_programs_stay_while_the_agent_is_away_and_go_with_the_option(agent):
    agent.lb.run("sysctl -qw net.ipv4.conf.client0.rp_filter=1")
    agent.apply(document(dsr_backend=True))
    assert agent.ask("status")["dsr_backend"] == {"devices": ["backend0", "client0"], "problems": {}}
    assert agent.ask("status")["devices"] == {}
    pinned = (agent.pins / "tc_node_ingress").stat().st_ino
    agent.stop()
    agent.start()
    status = agent.ask("status")
    assert (status["converged"], status["drift"]) == (True, 0)
    assert (agent.pins / "tc_node_ingress").stat().st_ino == pinned
    assert agent.lb.run("sysctl -n net.ipv4.conf.client0.rp_filter").strip() == "2"
    agent.apply(document(dsr_backend=False))
    assert agent.ask("status")["dsr_backend"] is None
    assert agent.lb.run("sysctl -n net.ipv4.conf.client0.rp_filter").strip() == "1"
