"""What becomes of a store: killed, cut off, restored from a backup, its CA changed. Meanwhile no request fails.

Requests go to `shop/web`. What changes in the meantime is `shop/near` of Berlin, whose connections nobody has.
"""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from lib import lab, mesh_lab

TARGETS = [mesh_lab.target(cluster) for cluster in mesh_lab.CLUSTERS]
ONE = {mesh_lab.address("berlin-be1")}
BOTH = mesh_lab.addresses("berlin")
NEAR = "cilium/state/services/v1/berlin/shop/near"


@pytest.fixture(autouse=True)
def whole():
    """Everything is as the inventory has it, before and after."""
    mesh_lab.wait_until_ready()
    yield
    mesh_lab.offer("berlin", *mesh_lab.backends("berlin"))
    wait_until_known(BOTH)


@contextmanager
def requests():
    """New connections, and ones that stay open, to all clusters; no request may fail. Nor does an executor restart."""
    before = executors()
    with lab.Load("--workers", "1", "--keep", "10", "--pause", "0.1", *TARGETS, node="router") as load:
        load.wait_until_kept()
        yield
    assert lab.failures(load.report) == {}
    everybody = mesh_lab.backends(*mesh_lab.CLUSTERS)
    assert [set(counts["backends"]) for counts in load.report.values()] == [everybody] * len(TARGETS)
    assert executors() == before


def executors():
    """Process of each cluster's executor."""
    return [lab.shell(mesh_lab.balancer(each), "systemctl show -P MainPID datapathd") for each in mesh_lab.CLUSTERS]


def wait_until_known(addresses):
    """Until the others have these backends of Berlin."""
    for cluster in mesh_lab.others("berlin"):
        lab.wait_until(lambda c=cluster: mesh_lab.published(c, "berlin") == addresses, 30)


def test_a_store_that_is_killed_and_comes_back_with_its_data():
    node = mesh_lab.store("berlin")
    with requests():
        lab.shell(node, "systemctl kill -s KILL etcd; systemctl stop etcd")
        mesh_lab.wait_until_cut_off("berlin")
        mesh_lab.offer("berlin", "berlin-be1")
        assert mesh_lab.published("paris", "berlin") == BOTH
        lab.run(node, "systemctl", "start", "etcd")
        wait_until_known(ONE)
        mesh_lab.wait_until_ready()


def test_a_store_that_is_cut_off_for_a_minute():
    with requests():
        with mesh_lab.packets_dropped("berlin"):
            end = time.monotonic() + 60
            mesh_lab.wait_until_cut_off("berlin")
            mesh_lab.offer("berlin", "berlin-be1")
            assert mesh_lab.in_table("berlin", mesh_lab.NEAR) == ONE
            time.sleep(end - time.monotonic())
            # Nobody else can know.
            assert mesh_lab.published("paris", "berlin") == BOTH
        wait_until_known(ONE)
        mesh_lab.wait_until_ready()


def test_a_remote_certificate_writes_nothing():
    key = "cilium/state/services/v1/berlin/shop/web"
    before = mesh_lab.as_remote("paris", "berlin", "get", key)
    assert '"berlin"' in before.out
    for words in (("put", key, "{}"), ("del", "cilium/", "--prefix"), ("put", "cilium/.heartbeat", "never")):
        refused = mesh_lab.as_remote("paris", "berlin", *words)
        assert refused.code != 0
        assert "permission denied" in refused.err
    assert mesh_lab.as_remote("paris", "berlin", "get", key).out == before.out
    # Nor does it read what is not for other clusters.
    assert "permission denied" in mesh_lab.as_remote("paris", "berlin", "get", "cilium/cache/", "--prefix").err


def test_a_store_that_is_restored_from_a_backup():
    """What is newer than the backup is published anew."""
    mesh_lab.playbook("mesh_backup")
    with requests():
        mesh_lab.offer("berlin", "berlin-be1")
        wait_until_known(ONE)
        mesh_lab.playbook("mesh_restore", "-e", "datapath_clustermesh_restore=berlin")
        wait_until_known(ONE)
        mesh_lab.wait_until_ready()
        assert mesh_lab.address("berlin-be2") not in mesh_lab.as_remote("paris", "berlin", "get", NEAR).out


def authorities():
    """Each store's trust bundle and certificate, as they lie on the nodes."""
    files = ("/etc/datapath/etcd/ca.pem", "/etc/datapath/etcd/server.pem")
    nodes = {cluster: mesh_lab.store(cluster) for cluster in mesh_lab.CLUSTERS}
    return {cluster: [lab.run(node, "cat", each).out for each in files] for cluster, node in nodes.items()}


def test_cas_that_are_changed_under_load():
    """With all certificates that they have issued; no table changes, and no store is away for long."""
    tables, old = [mesh_lab.slots(cluster) for cluster in mesh_lab.CLUSTERS], authorities()
    began = time.time()
    with requests():
        mesh_lab.playbook("rotate_mesh_ca")
        mesh_lab.wait_until_ready()
    outages = {cluster: mesh_lab.outages(cluster, began) for cluster in mesh_lab.CLUSTERS}
    # Each store is restarted twice. Who has a CPU for it is back within a second; these share two.
    assert all(len(each) >= 2 * len(mesh_lab.CLUSTERS) and max(each) < 3 for each in outages.values()), outages
    new = authorities()
    for cluster in mesh_lab.CLUSTERS:
        assert not set(old[cluster]) & set(new[cluster])
        assert all(text.count("BEGIN CERTIFICATE") == 1 for text in new[cluster])
    assert [mesh_lab.slots(cluster) for cluster in mesh_lab.CLUSTERS] == tables
    # What is there is not only kept from before.
    mesh_lab.offer("berlin", "berlin-be1")
    wait_until_known(ONE)
