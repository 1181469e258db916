"""Nodes with endpoints, as the playbooks and role bandwidth_manager see them; every host is this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapath.spec.document import merge
from datapath.spec.options import effective
from datapath.state.model import DesiredState

ROOT = Path(__file__).resolve().parents[3]
SHOW = f"""\
- ansible.builtin.import_playbook: {ROOT}/playbooks/targets.yml
- hosts: datapath_node:!datapath_target
  gather_facts: false
  tasks: [{{ansible.builtin.debug: {{msg: "other {{{{ inventory_hostname }}}}"}}}}]
- hosts: datapath_target
  gather_facts: false
  tasks: [{{ansible.builtin.debug: {{msg: "balances {{{{ inventory_hostname }}}}"}}}}]
"""


@pytest.mark.parametrize("lbs", [{}, {"lb1": {}}])
def test_each_node_is_converged_once(ansible, lbs):
    """Also one that is a load balancer, or a backend, beside having endpoints."""
    groups = {"endpoint_node": {"host1": {}, "be1": {}, **lbs}, "dsr_backend_node": {"be1": {}}}
    code, out = ansible(SHOW, {**groups, **({"lb_node": lbs} if lbs else {})})
    assert code == 0, out
    assert out.count("other host1") == out.count("other be1") == 1
    assert "other lb1" not in out
    assert out.count("balances lb1") == len(lbs)


ROLE = """\
- hosts: host1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ebpf.datapath.bandwidth_manager}
"""
POD = {"kind": "Pod", "metadata": {"name": "web", "annotations": {"kubernetes.io/egress-bandwidth": "50M"}}}
ASKED = {
    "cilium_enable_bandwidth_manager": True,
    "datapath_devices": ["eth0"],
    "datapath_endpoints": [{"interface": "ve-web", "manifest": POD}],
    # Of the whole fleet; on a node that balances nothing it has no effect.
    "datapath_services": [{"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.0.0.1:80"]}],
}


def test_the_role_asks_for_options_and_endpoints_in_one_document(ansible, recorder):
    """What reaches the node's command; it has the executor's own parser judge it."""
    code, out = ansible(ROLE, {"endpoint_node": {"host1": {**ASKED, "datapath_executable": str(recorder.command)}}})
    assert code == 0, out
    document = recorder.document()
    assert set(document) == {"options", "endpoints"}
    state = merge(DesiredState(), document)
    assert effective(state.options)["enable-bandwidth-manager"] is True
    assert [(each.name, each.egress_bandwidth) for each in state.endpoints] == [("web", 50_000_000)]


PREFLIGHT = """\
- hosts: host1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ebpf.datapath.preflight, tasks_from: inventory}
"""


def test_a_mistake_in_a_manifest_is_told_by_the_inventory_s_names(ansible):
    manifest = {**POD, "metadata": {"name": "web", "annotations": {"kubernetes.io/egress-bandwith": "50M"}}}
    variables = {**ASKED, "datapath_endpoints": [{"interface": "ve-web", "manifest": manifest}]}
    code, out = ansible(PREFLIGHT, {"endpoint_node": {"host1": variables}})
    assert code != 0
    assert "datapath_endpoints[0].manifest.metadata.annotations.kubernetes.io/egress-bandwith" in out
    assert "did you mean kubernetes.io/egress-bandwidth?" in out
