"""A cluster leaves, one comes that somebody else manages, and then all is as the inventory has it.

The last of the scenario's tests, as its playbooks take longest.
"""

from __future__ import annotations

import json

import pytest

from lib import lab, mesh_lab
from lib.etcd import Authority
from lib.mesh import cluster

STRANGER = "tokyo-be1"
"""The backend that Oslo offers: when Tokyo has left, nobody else does."""


@pytest.fixture
def oslo(tmp_path):
    """A cluster with an etcd and a CA of its own, on the machine that runs the playbooks."""
    with cluster(tmp_path, Authority(tmp_path / "ca"), "oslo", 9, address=mesh_lab.CONTROL_NODE) as made:
        web = made.service([mesh_lab.address(STRANGER)], "web", "shop")
        made.store.put(made.key("web", "shop"), json.dumps(web))
        yield made


def change(directory, **variables):
    """An inventory file with other variables of clusters (JSON is YAML)."""
    path = directory / "change.yml"
    path.write_text(json.dumps({"all": {"children": {name: {"vars": each} for name, each in variables.items()}}}))
    return path


def files_of(cluster_, of):
    """What the load balancer of a cluster has to follow another one."""
    return lab.shell(mesh_lab.balancer(cluster_), f"ls /etc/datapath/clustermesh/{of} 2>/dev/null || true").split()


def test_one_leaves_another_comes_and_back(oslo, tmp_path):
    leaves = {"datapath_clustermesh_state": "absent"}
    comes = {"datapath_clustermesh_external_peers": [oslo.peer()]}
    mesh_lab.playbook("mesh", "-i", str(change(tmp_path, tokyo=leaves, berlin=comes)))

    assert {name: set(mesh_lab.mesh(name)) for name in mesh_lab.CLUSTERS} == {
        "berlin": {"paris", "oslo"},
        "paris": {"berlin"},
        "tokyo": set(),
    }
    both = mesh_lab.backends("berlin", "paris")
    assert {name: mesh_lab.answers(name) for name in mesh_lab.CLUSTERS} == {
        "berlin": both | {STRANGER},
        "paris": both,
        "tokyo": mesh_lab.backends("tokyo"),
    }
    assert files_of("berlin", "oslo") == ["ca.pem", "remote.key", "remote.pem"]
    assert files_of("paris", "tokyo") == []
    assert lab.shell(mesh_lab.store("tokyo"), "systemctl is-active etcd || true").strip() == "inactive"

    mesh_lab.playbook("mesh")
    mesh_lab.wait_until_ready()
    everybody = mesh_lab.backends(*mesh_lab.CLUSTERS)
    assert {name: mesh_lab.answers(name) for name in mesh_lab.CLUSTERS} == dict.fromkeys(mesh_lab.CLUSTERS, everybody)
    assert files_of("berlin", "oslo") == []
