"""Rates on nodes whose kernel has qdisc fq; on others the refusal of them, which leaves everything as it was."""

from __future__ import annotations

import json
import re

from lib import bandwidth, lab, nodes

RATE = 20_000_000
NODES = ("lb1", "host1")
DB = {"name": "db", "interface": "ve-db", "labels": {"app": "db"}, "addresses": ["10.0.2.2"]}
ANNOTATIONS = {"kubernetes.io/egress-bandwidth": "20M", "bandwidth.cilium.io/priority": "Burstable"}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}}
RATED = {
    "cilium_enable_bandwidth_manager": True,
    "datapath_endpoints": [
        {**DB, "egress_bandwidth": "20M"},
        {"interface": "ve-web", "manifest": {**POD, "metadata": {**POD["metadata"], "annotations": ANNOTATIONS}}},
    ],
}


def test_rates_or_their_refusal():
    has_fq = {node: lab.datapath(node, "info")["features"]["sch_fq"] for node in NODES}
    # One kernel serves all nodes of the lab.
    assert len(set(has_fq.values())) == 1, has_fq
    (check_rates if has_fq["host1"] else check_refusal)()


def cluster(*arguments, **variables):
    return lab.playbook("cluster", "-e", json.dumps(variables), *arguments, inventory=bandwidth.INVENTORY)


# --- without fq ---


def check_refusal():
    before = {node: nodes.snapshot(node) for node in NODES}
    check_that_preflight_refuses()
    check_that_the_executor_refuses()
    for node in NODES:
        assert nodes.differences(before[node], nodes.snapshot(node)) == [], node
        lab.datapath(node, "verify")
    assert bandwidth.served()


def check_that_preflight_refuses():
    """Before anything is touched, on both kinds of nodes, with feature and remedy."""
    said = cluster(**RATED)
    assert said.returncode != 0, said.stdout
    assert set(re.findall(r"changed=(\d+)", said.stdout)) == {"0"}
    told = " ".join(said.stdout.split())
    for node in NODES:
        assert re.search(rf"\[{node}\]: FAILED", told), said.stdout
    assert "has no qdisc fq (feature sch_fq)" in told
    assert "CONFIG_NET_SCH_FQ, or set cilium_enable_bandwidth_manager: false" in told


def check_that_the_executor_refuses():
    """By itself: whoever uses modules has no preflight."""
    for check in (True, False):
        said = bandwidth.module("host1", "bandwidth_manager", check=check, enabled=True)
        (error,) = said["errors"]
        assert error["path"] == "options.values.enable_bandwidth_manager"
        assert "sch_fq" in error["message"]
        assert "CONFIG_NET_SCH_FQ" in error["allowed"]
    pending = {"options": {"merge": True, "values": {"enable_bandwidth_manager": True}}}
    rated = {**DB, "egress_bandwidth": "20M"}
    assert "sch_fq" in bandwidth.module("host1", "endpoint", check=True, pending=pending, **rated)["msg"]
    (error,) = bandwidth.module("host1", "endpoint", **rated)["errors"]
    assert error["path"] == "endpoints.items[0].egress_bandwidth"
    assert "enable-bandwidth-manager is false" in error["message"]


# --- with fq ---


def measured(container):
    """Bits a second that reach the router from a container, as iperf3 there counts them."""
    lab.shell("router", "systemd-run --quiet --collect --unit lab-iperf iperf3 --server --one-off")
    lab.wait_until(lambda: ":5201" in lab.shell("router", "ss -Hltn"))
    said = lab.shell("host1", f"ip netns exec {container} iperf3 -c 198.18.31.1 -t 5 -O 1 -P 4 --json")
    return json.loads(said)["end"]["sum_received"]["bits_per_second"]


def check_rates():
    assert measured("db") > 2 * RATE
    dry = cluster("--check", "--diff", **RATED)
    assert dry.returncode == 0, dry.stdout
    assert "rates_v1 db egress" in dry.stdout
    assert measured("db") > 2 * RATE
    for number in (0, 1):
        said = cluster(**RATED)
        assert said.returncode == 0, said.stdout
        changed = dict(re.findall(r"(lb1|host1) .*changed=(\d+)", said.stdout))
        assert [int(changed[node]) > 0 for node in NODES] == [number == 0] * 2, said.stdout
    for container in ("db", "web"):
        # What iperf3 counts is less than what is on the wire, by headers.
        assert 0.85 * RATE < measured(container) < 1.02 * RATE
    check_a_change()
    said = cluster()
    assert said.returncode == 0, said.stdout
    assert measured("db") > 2 * RATE


def check_a_change():
    arguments = {**DB, "egress_bandwidth": "40M"}
    assert bandwidth.module("host1", "endpoint", check=True, **arguments)["changed"]
    assert bandwidth.module("host1", "endpoint", **arguments)["changed"]
    assert not bandwidth.module("host1", "endpoint", **arguments)["changed"]
    assert 1.7 * RATE < measured("db") < 2.04 * RATE
    said = bandwidth.module("host1", "bandwidth_manager", enabled=False)
    assert {error["path"] for error in said["errors"]} == {
        "endpoints.db.egress_bandwidth",
        "endpoints.web.egress_bandwidth",
        "endpoints.web.priority",
    }
