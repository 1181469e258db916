"""A host that only has endpoints, and a load balancer that has some."""

from __future__ import annotations

from lib import bandwidth, lab


def names(node):
    return {each["name"] for each in lab.datapath(node, "endpoint", "list")["endpoints"]}


def test_the_host_has_its_endpoints_and_balances_nothing():
    assert names("host1") == {"host", "db", "web"}
    (web,) = lab.datapath("host1", "endpoint", "list", "web")["endpoints"]
    assert (web["interface"], web["labels"], web["state"]) == ("ve-web", {"app": "web"}, "present")
    assert lab.datapath("host1", "info")["load_balancer"] is None
    lab.datapath("host1", "verify")


def test_the_load_balancer_has_both():
    assert names("lb1") == {"host"}
    assert bandwidth.served()
    lab.datapath("lb1", "verify")


def test_status_shows_endpoints():
    said = lab.playbook("status", "--limit", "host1", inventory=bandwidth.INVENTORY)
    assert said.returncode == 0, said.stdout
    assert "ve-web" in said.stdout
    assert "endpoint list" in said.stdout
    assert "service list" not in said.stdout
