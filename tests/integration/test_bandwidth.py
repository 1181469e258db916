"""Rates of endpoints through the whole executor: where this kernel has fq, and refused where it has not."""

import json
import socket
import time

import pytest

from datapath.kernel import features
from integration.node import BACKENDS

HAS_FQ = features.has("sch_fq")
NEEDS_FQ = pytest.mark.skipif(not HAS_FQ, reason="this kernel has no sch_fq")
DB = {"name": "db", "interface": "client0", "egress_bandwidth": "10M", "priority": "burstable"}
LIMIT = "net.core.somaxconn"


def document(*endpoints, **values):
    options = {"devices": ["backend0"], "enable_bandwidth_manager": True, **values}
    return {"options": {"values": options}, "endpoints": {"items": list(endpoints), "purge": True}}


def qdiscs(agent):
    return {row["dev"]: row for row in json.loads(agent.lb.run("tc -j qdisc show")) if row.get("root")}


def rates(agent):
    rows = agent.ask("bandwidth", "list", "--seconds", "0.1")["rates"]
    return {(row["endpoint"], row["direction"]): row for row in rows}


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(HAS_FQ, reason="this kernel has sch_fq")
def test_without_fq_it_is_refused_whole(agent):
    before, desired = qdiscs(agent), agent.desired.exists()
    for ask in (agent.check, agent.apply):
        (error,) = ask(document(DB), code=2)["errors"]
        assert error["path"] == "options.values.enable_bandwidth_manager"
        assert "sch_fq" in error["message"]
        assert "CONFIG_NET_SCH_FQ" in error["allowed"]
    assert (qdiscs(agent), agent.desired.exists()) == (before, desired)
    assert agent.ask("status", "-v")["bandwidth"] is None
    assert rates(agent) == {}
    # Endpoints without rates are nothing of the manager's.
    agent.apply({"endpoints": {"items": [{"name": "db", "interface": "client0"}]}})


def test_a_rate_without_the_manager_is_refused(agent):
    (first, second) = agent.apply(document(DB, enable_bandwidth_manager=False), code=2)["errors"]
    assert first["path"] == "endpoints.items[0].egress_bandwidth"
    assert "enable-bandwidth-manager is false" in first["message"]
    assert second["path"] == "endpoints.items[0].priority"


@NEEDS_FQ
def test_the_manager(agent):
    agent.lb.run(f"sysctl -qw {LIMIT}=128")
    agent.lb.run("sysctl -qw net.ipv4.ip_forward=1")
    agent.client.run("ip route add 203.0.113.0/24 via 198.51.100.1")
    before = qdiscs(agent)
    planned = agent.check(document(DB))
    assert qdiscs(agent) == before
    summaries = [row["summary"] for row in planned["operations"]]
    assert "set sysctl net.core.somaxconn: 128 -> 4096" in summaries
    assert any(each.startswith("set qdisc backend0: noqueue -> ") for each in summaries)
    assert "create map rates_v1 db egress: 10 Mbit/s, horizon 2 s, priority 9" in summaries
    assert agent.apply(document(DB))["operations"] == planned["operations"]
    assert not agent.apply(document(DB))["changed"]
    assert agent.run("verify").returncode == 0
    assert (qdiscs(agent)["client0"], qdiscs(agent)["backend0"]["handle"]) == (before["client0"], "ebf0:")

    assert " 0% packet loss" in agent.client.run(f"ping -c 5 -i 0.05 -n {BACKENDS[0]}")
    row = rates(agent)["db", "egress"]
    assert (row["bits_per_second"], row["passed_packets"], row["dropped_packets"]) == (10**7, 5, 0)
    assert [each["number"] for each in agent.ask("endpoint", "list")["endpoints"]] == [row["number"]]
    assert "10 Mbit/s" in agent.run("bandwidth", "list", "--seconds", "0.1").stdout
    counted = {row["name"]: row["packets"] for row in agent.ask("status", "-v")["bandwidth_outcomes"]}
    assert counted["endpoint_marked"] >= 5

    changed = agent.apply(document({**DB, "egress_bandwidth": "20M"}))
    assert [row["target"] for row in changed["operations"]] == ["endpoint", "map rates_v1"]
    assert rates(agent)["db", "egress"]["passed_packets"] == 5

    agent.lb.run("tc qdisc del dev backend0 root")
    assert agent.run("verify").returncode == 3
    agent.apply(document({**DB, "egress_bandwidth": "20M"}))
    assert agent.run("verify").returncode == 0

    agent.ask("reset", "--yes")
    assert qdiscs(agent) == before
    assert agent.lb.run(f"sysctl -n {LIMIT}").strip() == "128"
    assert rates(agent) == {}


@NEEDS_FQ
def test_routed_by_the_programs(agent):
    """Of an endpoint that has no rate, too."""
    agent.lb.run("sysctl -qw net.ipv4.ip_forward=1")
    agent.client.run("ip route add 203.0.113.0/24 via 198.51.100.1")
    plain = {"name": "db", "interface": "client0"}

    def counted():
        assert " 0% packet loss" in agent.client.run(f"ping -c 5 -i 0.05 -n {BACKENDS[0]}")
        return {row["name"]: row["packets"] for row in agent.ask("status", "-v")["bandwidth_outcomes"]}

    agent.apply(document(plain, enable_host_legacy_routing=False))
    assert agent.run("verify").returncode == 0
    assert counted()["endpoint_routed"] >= 5
    agent.apply(document(DB, enable_host_legacy_routing=False))
    before = counted()["endpoint_routed"]
    assert before >= 10
    assert rates(agent)["db", "egress"]["passed_packets"] == 5
    agent.apply(document(DB))
    assert counted()["endpoint_routed"] == before
    assert rates(agent)["db", "egress"]["passed_packets"] == 10


CONGESTION = "net.ipv4.tcp_congestion_control"


def sysctl(agent, name):
    return agent.lb.run(f"sysctl -n {name}").strip()


def algorithms(agent):
    """Algorithms of (a socket of the host's, one of the endpoint's), connected to the same backend."""
    found = []
    with agent.backend:
        listener = socket.create_server((BACKENDS[0], 0))
    with listener:
        for namespace in (agent.lb, agent.client):
            with namespace:
                one = socket.create_connection((BACKENDS[0], listener.getsockname()[1]), timeout=20)
            with one:
                found.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode())
    return found


@pytest.fixture
def others(agent):
    """Namespaces whose algorithm is not BBR, with a way from the endpoint to the backends."""
    for namespace in (agent.lb, agent.client):
        namespace.run(f"sysctl -qw {CONGESTION}=reno")
    agent.lb.run("sysctl -qw net.ipv4.ip_forward=1")
    agent.client.run("ip route add 203.0.113.0/24 via 198.51.100.1")
    return agent


@NEEDS_FQ
def test_bbr_of_all(others):
    agent = others
    wanted = document(DB, enable_bbr=True, enable_host_legacy_routing=False)
    summaries = [row["summary"] for row in agent.check(wanted)["operations"]]
    assert f"set sysctl {CONGESTION}: reno -> bbr" in summaries
    assert sysctl(agent, CONGESTION) == "reno"
    agent.apply(wanted)
    assert not agent.apply(wanted)["changed"]
    # The endpoint's namespace was there before, and keeps what it had.
    assert algorithms(agent) == ["bbr", "reno"]
    assert sysctl(agent, "net.ipv4.tcp_slow_start_after_idle") == "0"
    agent.lb.run(f"sysctl -qw {CONGESTION}=reno")
    assert agent.run("verify").returncode == 3
    agent.apply(wanted)
    assert sysctl(agent, CONGESTION) == "bbr"
    agent.apply(document(DB))
    assert (sysctl(agent, CONGESTION), sysctl(agent, "net.ipv4.tcp_slow_start_after_idle")) == ("reno", "1")
    agent.apply(wanted)
    agent.ask("reset", "--yes")
    assert (sysctl(agent, CONGESTION), sysctl(agent, "net.ipv4.tcp_slow_start_after_idle")) == ("reno", "1")


@NEEDS_FQ
def test_bbr_of_the_host_alone(others):
    agent = others
    agent.apply(document(DB, enable_bbr=True, enable_host_legacy_routing=False))
    wanted = document(DB, enable_bbr=True, enable_bbr_hostns_only=True)
    summaries = [row["summary"] for row in agent.check(wanted)["operations"]]
    assert "attach cgroup sock_bbr: BBR in place of reno for the host's own sockets" in summaries
    agent.apply(wanted)
    assert not agent.apply(wanted)["changed"]
    assert agent.run("verify").returncode == 0
    # What network namespaces begin with is not BBR.
    assert sysctl(agent, CONGESTION) == "reno"
    assert algorithms(agent) == ["bbr", "reno"]
    assert "BBR of the host's own sockets" in agent.ask("reset", "--yes")["removed"]
    assert algorithms(agent) == ["reno", "reno"]


def test_bbr_without_what_it_needs_is_refused(agent):
    asked = ({"enable_bandwidth_manager": False, "enable_bbr": True}, {"enable_bbr_hostns_only": True})
    for values, expected in zip(asked, ("BBR needs qdisc fq", "enable-bbr-hostns-only says whose")):
        errors = agent.apply(document(**values), code=2)["errors"]
        assert any(error["message"].startswith(expected) for error in errors)
        assert all(error["path"] == "options" for error in errors)


@NEEDS_FQ
def test_an_endpoint_that_comes_later(agent):
    agent.apply(document({"name": "vms", "interfaces": "tap*", "ingress_bandwidth": "1M"}))
    assert rates(agent) == {}
    for _ in range(2):
        agent.lb.run("ip link add tap7 type veth peer name other")
        wait_for(lambda: ("vms/tap7", "ingress") in rates(agent))
        agent.lb.run("ip link del tap7")
        wait_for(lambda: rates(agent) == {})
    assert agent.run("verify").returncode == 0


@NEEDS_FQ
def test_somebody_s_qdisc_is_left(agent):
    agent.lb.run("tc qdisc add dev backend0 root handle 7: tbf rate 1mbit burst 10k latency 50ms")
    (error,) = agent.apply(document(DB), code=2)["errors"]
    assert "qdisc tbf 7:, which somebody configured" in error["message"]
    assert "tc qdisc del dev backend0 root" in error["allowed"]
