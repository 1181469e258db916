"""Playbooks of the cluster mesh; every host is this machine, and nothing is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapath.spec.document import merge
from datapath.state.model import DesiredState

ROOT = Path(__file__).resolve().parents[3]


def inventory(tmp_path, **more):
    """Two clusters of a member and a load balancer each; `more` are variables of one, by its name."""

    def host(cluster, number, address):
        named = {"cilium_cluster_name": cluster, "cilium_cluster_id": number, "datapath_node_addresses": [address]}
        pki = {"datapath_clustermesh_pki_dir": str(tmp_path / "pki"), "ansible_become": False}
        return {**named, **pki, **more.get(cluster, {})}

    return {
        "etcd": {"be-etcd": host("berlin", 1, "192.0.2.21"), "pa-etcd": host("paris", 2, "192.0.2.31")},
        "lb_node": {"be-lb": host("berlin", 1, "192.0.2.11"), "pa-lb": host("paris", 2, "192.0.2.12")},
    }


CHECK = """\
- ansible.builtin.import_playbook: {root}/playbooks/mesh_targets.yml
- ansible.builtin.import_playbook: {root}/playbooks/mesh_check.yml
"""


def check(ansible, tmp_path, **more):
    return ansible(CHECK.format(root=ROOT), inventory(tmp_path, **more))


def test_everything_wrong_is_told_at_once_and_nothing_is_made(ansible, tmp_path):
    """No systemd runs here and nobody listens, which is among what is told."""
    wrong = {
        "berlin": {"cilium_cluster_id": 256, "datapath_clustermesh_peers": ["pariss"], "datapath_etcd_client_port": 1},
        "paris": {
            "cilium_cluster_name": "Paris",
            "datapath_cluster_networks": ["192.0.2.0/28"],
            "datapath_clustermesh_ca_certificate": "/nowhere",
            "datapath_clustermesh_ca_key": "/nowhere",
            "datapath_clustermesh_stat": "absent",
        },
    }
    code, out = check(ansible, tmp_path, **wrong)
    assert code != 0
    told = " ".join(out.split())
    for expected in (
        'be-lb: options = {"cluster-id": 256',
        'pa-lb: cilium_cluster_name = "Paris": must consist of lower case',
        "did you mean paris?",
        "no cluster pariss with a store is in the inventory",
        "does not reach the store of berlin: https://192.0.2.21:1: ",
        "192.0.2.11 (address of be-lb) of cluster berlin overlap",
        "variable datapath_clustermesh_stat: there is no such variable",
        "did you mean datapath_clustermesh_state?",
        "/nowhere: no such file",
    ):
        assert expected in told, f"{expected} is not in {out}"
    assert not (tmp_path / "pki").exists()


ROLE = """\
- hosts: be-lb
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ebpf.datapath.datapath}
"""


@pytest.mark.parametrize("state", ["present", "absent"])
def test_one_document_tells_options_store_and_peers(ansible, recorder, tmp_path, state):
    """What cluster.yml hands over is what mesh.yml does: it takes nothing away."""
    groups = inventory(tmp_path, berlin={"datapath_clustermesh_state": state})
    groups["lb_node"]["be-lb"]["datapath_executable"] = str(recorder.command)
    code, out = ansible(ROLE, groups)
    assert code == 0, out
    state_of_node = merge(DesiredState(), recorder.document())
    assert [each.name for each in state_of_node.peers] == (["paris"] if state == "present" else [])
    assert (state_of_node.store is not None) == (state == "present")
    assert recorder.document()["clustermesh"]["purge"]


def test_an_inventory_without_a_mesh_says_nothing_of_one(ansible, recorder, tmp_path):
    groups = inventory(tmp_path)
    node = {"cilium_cluster_name": "berlin", "datapath_executable": str(recorder.command)}
    code, out = ansible(ROLE, {"etcd": groups["etcd"], "lb_node": {"be-lb": node}})
    assert code == 0, out
    assert set(recorder.document()) == {"options"}


@pytest.mark.parametrize("words", [[], ["-e", "datapath_clustermesh_restore=oslo"]])
def test_a_restore_has_to_be_told_of_what(ansible, tmp_path, words):
    code, out = ansible(str(ROOT / "playbooks/mesh_restore.yml"), inventory(tmp_path), *words)
    assert code != 0
    assert "datapath_clustermesh_restore=NAME, of berlin, paris" in " ".join(out.split())
