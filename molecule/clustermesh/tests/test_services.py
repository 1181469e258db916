"""Who answers: backends of all clusters, by affinity and by what clusters share; and what happens without one's own."""

from __future__ import annotations

import time

import pytest

from lib import lab, mesh_lab

ALL = mesh_lab.backends(*mesh_lab.CLUSTERS)


@pytest.fixture(autouse=True, scope="module")
def ready():
    mesh_lab.wait_until_ready()


@pytest.mark.parametrize("cluster", mesh_lab.CLUSTERS)
def test_requests_go_to_all_clusters(cluster):
    report = lab.load("--count", 600, mesh_lab.target(cluster), node="router")
    assert lab.failures(report) == {}
    counts = report[mesh_lab.target(cluster)]["backends"]
    assert set(counts) == ALL
    # A hundred each, give or take what chance and a table of 16381 slots do.
    assert min(counts.values()) > 50


@pytest.mark.parametrize("port", [mesh_lab.WEB, mesh_lab.NEAR, mesh_lab.FAR])
def test_affinity(port):
    for cluster in mesh_lab.CLUSTERS:
        others = mesh_lab.backends(*mesh_lab.others(cluster))
        wanted = {mesh_lab.WEB: ALL, mesh_lab.NEAR: mesh_lab.backends(cluster), mesh_lab.FAR: others}[port]
        assert mesh_lab.answers(cluster, port) == wanted, cluster


def test_what_one_cluster_does_not_share():
    """A Service by its manifest; Tokyo's backends are for Tokyo, which uses those of the others."""
    shared = mesh_lab.backends("berlin", "paris")
    found = {cluster: mesh_lab.answers(cluster, mesh_lab.API) for cluster in mesh_lab.CLUSTERS}
    assert found == {"berlin": shared, "paris": shared, "tokyo": ALL}


def test_tables_are_the_same_on_every_node():
    first, *rest = (mesh_lab.slots(cluster) for cluster in mesh_lab.CLUSTERS)
    assert len(first) == 16381
    assert all(each == first for each in rest)


def test_failover_and_back():
    """All backends of a cluster stop: the others' serve it within three seconds, until its own are back."""
    near = mesh_lab.target("berlin", mesh_lab.NEAR)
    own, others = mesh_lab.backends("berlin"), mesh_lab.backends("paris", "tokyo")
    with lab.Load("--workers", "1", near, node="router") as load:
        stopped = time.time()
        for node in own:
            lab.run(node, "systemctl", "stop", "lab-http")
        lab.wait_until(lambda: mesh_lab.in_table("berlin", mesh_lab.NEAR) == mesh_lab.addresses("paris", "tokyo"), 10)
        assert mesh_lab.answers("berlin", mesh_lab.NEAR) == others
        for node in own:
            lab.run(node, "systemctl", "start", "lab-http")
        lab.wait_until(lambda: mesh_lab.in_table("berlin", mesh_lab.NEAR) == mesh_lab.addresses("berlin"), 10)
        assert mesh_lab.answers("berlin", mesh_lab.NEAR) == own
    counts = load.report[near]
    assert counts["failed"] < 500, "else not all of them are told"
    late = [each for each in counts["failures"] if each["at"] > stopped + 3]
    assert late == []
    assert set(counts["backends"]) == own | others
