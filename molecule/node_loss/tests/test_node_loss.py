"""A load balancer is powered off under a thousand connections, just when a backend is added: none breaks.

That is what direct server return promises. With SNAT a connection lives and dies with its load balancer, which alone
knows its source port.
"""

from __future__ import annotations

import json
import time

from lib import lab

CONNECTIONS = 1000
ROUTES = (("-4", "192.0.2.0/24", "198.18.12.10"), ("-6", "2001:db8:0:ff::/64", "2001:db8:0:12::10"))
CHECK = {"type": "http", "path": "/healthz", "interval": "500ms", "timeout": "300ms", "rise": 2, "fall": 2}
BOTH, ALL = (21, 22), (21, 22, 23)


def offer(node, nets):
    """Set the web services' backends on one load balancer."""
    items = [
        {
            "name": name,
            "frontends": [f"{vip}:80/TCP"],
            "backends": [pattern.format(net) for net in nets],
            "health_check": CHECK,
        }
        for name, vip, pattern in (
            ("web4", lab.VIP4, "198.18.{}.10:8080"),
            ("web6", f"[{lab.VIP6}]", "[2001:db8:0:{}::10]:8080"),
        )
    ]
    lab.datapath(node, "apply", "-", stdin=json.dumps({"services": {"items": items}}))


def power_off(node):
    """At once: neither daemon nor kernel gets to tidy anything up."""
    lab.run(node, "systemctl", "poweroff", "--force", "--force", check=False)


def withdraw():
    """What a routing daemon does when its neighbour is gone."""
    for family, network, hop in ROUTES:
        lab.run("router", "ip", family, "route", "replace", network, "via", hop)


def frames(node):
    """Frames that came in by eth0."""
    return int(lab.run(node, "cat", "/sys/class/net/eth0/statistics/rx_packets").out)


def test_no_connection_breaks():
    for node in lab.LOAD_BALANCERS:
        offer(node, BOTH)
    before = frames("lb1")
    with lab.Load("--workers", "1", "--keep", str(CONNECTIONS // 2), "--pause", "1", lab.TCP4, lab.TCP6) as load:
        load.wait_until_kept()
        assert frames("lb1") - before > CONNECTIONS, "the load balancer that goes has its share"
        offer("lb2", ALL)
        power_off("lb1")
        withdraw()
        time.sleep(10)
    for target, counts in load.report.items():
        assert [each for each in counts["failures"] if each["flow"] != "new"] == [], target
        # New connections go to the backend that was added, too.
        assert set(counts["backends"]) == set(lab.BACKENDS)


def test_a_node_that_is_back_forwards_by_itself():
    """From what it has on its disk, before anybody configures it again."""
    result = lab.playbook("lab")
    assert result.returncode == 0, result.stdout + result.stderr
    lab.wait_until(lambda: lab.datapath("lb1", "status")["converged"])
    before = frames("lb1")
    report = lab.load("--count", 300, *lab.TARGETS)
    assert lab.failures(report) == {}
    assert frames("lb1") - before > 300


def test_what_snat_promises():
    """Those of the node that is lost break, those of others stay, and new ones find a way at once."""
    lab.converge_dsr(cilium_loadbalancer_mode="snat")
    with lab.Load("--workers", "0", "--keep", "200", "--pause", "0.5", lab.TCP4, lab.TCP6) as load:
        load.wait_until_kept()
        power_off("lb1")
        withdraw()
        assert lab.failures(lab.load("--count", 300, *lab.TARGETS)) == {}
        time.sleep(5)
    for target, counts in load.report.items():
        assert set(counts["sources"]) <= lab.SNAT["lb1"] | lab.SNAT["lb2"]
        assert counts["failed"] > 0, target
        assert {each["source"] for each in counts["failures"]} <= lab.SNAT["lb1"], target
