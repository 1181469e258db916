"""What users do not notice: a daemon that is killed or restarted, a backend that dies, a playbook that is refused."""

from __future__ import annotations

import json
import re
import time

import pytest

from lib import lab

EXPECTED_DETECTION = 3.0
"""Seconds: `fall` (2) checks, 0.5 s apart, that end after 0.3 s at the latest, and room for two busy cores."""

ENDS_OF_A_KILLED_SERVER = {"ConnectionRefusedError", "ConnectionResetError", "IncompleteReadError", "BrokenPipeError"}


def programs(node):
    """Ids of loaded programs and maps of ours: the kernel gives a new one to whatever is made anew."""
    links = json.loads(lab.run(node, "ip", "-j", "-d", "link", "show", "dev", "eth0").out)
    pins = lab.shell(node, "for pin in /sys/fs/bpf/datapath/maps/*; do bpftool -j map show pinned $pin; echo; done")
    return links[0]["xdp"]["prog"]["id"], [json.loads(line)["id"] for line in pins.splitlines() if line]


def wait_for_agent(node):
    lab.wait_until(lambda: lab.run(node, "datapath", "status", "-o", "json", check=False).code == 0, seconds=30)


def connections(node):
    """How many connections to web servers are open."""
    return len(lab.shell(node, "ss -Htn state established '( dport = :80 )'").splitlines())


def main_pid(node):
    return lab.run(node, "systemctl", "show", "--property=MainPID", "--value", "datapathd").out.strip()


@pytest.mark.parametrize("how", ["kill --signal=KILL", "restart"])
def test_losing_the_daemon_loses_no_request(how):
    before = {node: (programs(node), main_pid(node)) for node in lab.LOAD_BALANCERS}
    with lab.Load("--workers", "4", "--keep", "4", *lab.TARGETS) as load:
        lab.wait_until(lambda: connections("client") >= 8)
        for node in lab.LOAD_BALANCERS:
            lab.shell(node, f"systemctl {how} datapathd")
        for node in lab.LOAD_BALANCERS:
            lab.wait_until(lambda node=node: main_pid(node) not in ("0", before[node][1]), seconds=30)
            wait_for_agent(node)
    # TCP repairs the loss of a packet, UDP does not: each one was answered.
    assert lab.failures(load.report) == {}
    for node in lab.LOAD_BALANCERS:
        assert programs(node) == before[node][0], f"{node}: programs or maps were made anew"


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_a_restart_writes_nothing(node):
    lab.shell(node, "systemctl restart datapathd")
    wait_for_agent(node)
    lab.wait_until(lambda: lab.datapath(node, "status")["converged"])
    metrics = lab.shell(
        node, "curl --silent --fail --unix-socket /run/datapath/datapathd.sock http://localhost/metrics"
    )
    assert re.search(r"^datapath_map_writes_total (\S+)", metrics, re.MULTILINE).group(1) == "0.0"
    assert lab.datapath(node, "status")["last_apply"] is None
    assert lab.datapath(node, "verify")["drift_count"] == 0


@pytest.fixture
def web_server():
    """Stops and starts a backend's web server; it is healthy again afterwards."""

    def control(node, verb):
        lab.shell(node, f"systemctl {verb} lab-http")

    yield control
    for node in lab.BACKENDS:
        control(node, "start")
    for node in lab.LOAD_BALANCERS:
        lab.wait_until(lambda node=node: lab.unhealthy(node) == set(), seconds=30)


def test_a_dead_backend_is_left_out_and_the_others_notice_nothing(web_server):
    with lab.Load("--workers", "4", "--keep", "9", *lab.TARGETS) as load:
        lab.wait_until(lambda: connections("client") >= 18)
        web_server("be2", "kill --signal=KILL --kill-whom=all")
        web_server("be2", "stop")
        for node in lab.LOAD_BALANCERS:
            lab.wait_until(lambda node=node: len(lab.unhealthy(node)) == 4)
        detected = time.time()
        lab.wait_until(lambda: time.time() > detected + 2)  # two seconds of what comes after
    for target in (lab.TCP4, lab.TCP6):
        failures = load.report[target]["failures"]
        assert failures, "the kill did not show: nothing was tested"
        assert {failure["flow"] for failure in failures} <= {"new", "be2"}, (
            "an established flow to another backend broke"
        )
        # Only be2's machine refuses connections: be1 and be3 answer every request that meets them.
        assert {failure["why"].split("(")[0] for failure in failures} <= ENDS_OF_A_KILLED_SERVER
        times = [failure["at"] for failure in failures]
        assert max(times) - min(times) < EXPECTED_DETECTION
    assert lab.failures({target: load.report[target] for target in (lab.UDP4, lab.UDP6)}) == {}


def test_it_comes_back(web_server):
    web_server("be3", "stop")
    for node in lab.LOAD_BALANCERS:
        lab.wait_until(lambda node=node: len(lab.unhealthy(node)) == 4, seconds=15)
    assert "be3" not in lab.load("--count", 300, lab.TCP4)[lab.TCP4]["backends"]
    web_server("be3", "start")
    for node in lab.LOAD_BALANCERS:
        lab.wait_until(lambda node=node: lab.unhealthy(node) == set(), seconds=15)
    assert "be3" in lab.load("--count", 300, lab.TCP4)[lab.TCP4]["backends"]


def test_without_any_backend_clients_are_refused(web_server):
    for node in lab.BACKENDS:
        web_server(node, "stop")
    for node in lab.LOAD_BALANCERS:
        lab.wait_until(lambda node=node: len(lab.unhealthy(node)) == 12, seconds=15)
    for host in (lab.VIP4, f"[{lab.VIP6}]"):
        said = lab.run("client", "curl", "--silent", "--globoff", "--max-time", "2", f"http://{host}/", check=False)
        assert said.code == 7, "curl's code for a refused connection (ICMP port unreachable)"
