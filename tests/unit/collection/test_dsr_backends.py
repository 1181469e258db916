"""Backends of direct server return, as role preflight and the playbooks see them; every host is this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from datapath.spec.document import merge
from datapath.spec.options import effective
from datapath.state.model import DesiredState

ROOT = Path(__file__).resolve().parents[3]
PLAY = """\
- hosts: {hosts}
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: ebpf.datapath.preflight, tasks_from: inventory}}
    - ansible.builtin.include_role: {{name: ebpf.datapath.preflight, tasks_from: backends}}
      vars:
        preflight_backend_nodes: "{{{{ groups['dsr_backend_node'] | default([]) }}}}"
"""
SERVICE = {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["10.1.2.3:80", "10.1.2.4:80"]}
DSR = {"cilium_loadbalancer_mode": "dsr", "datapath_services": [SERVICE]}


def judge(ansible, backends, hosts="lb1", **variables):
    groups = {"lb_node": {"lb1": {**DSR, **variables}}}
    if backends is not None:
        groups["dsr_backend_node"] = backends
    return ansible(PLAY.format(hosts=hosts), groups)


def test_addresses_by_the_inventory(ansible):
    code, out = judge(ansible, {"be1": {"ansible_host": "10.1.2.3"}, "be2": {"ansible_host": "10.1.2.4"}})
    assert code == 0, out


def test_a_backend_that_no_node_has_is_named(ansible):
    code, out = judge(ansible, {"be1": {"ansible_host": "10.1.2.3"}})
    assert code != 0
    assert "service web: backend 10.1.2.4 is not a node of group dsr_backend_node: it is no address of be1." in out
    assert "backend 10.1.2.3" not in out


def test_an_inventory_without_backends(ansible):
    code, out = judge(ansible, None)
    assert code != 0
    assert "backend 10.1.2.3 is not a node of group dsr_backend_node: the group is empty." in out


def test_addresses_are_looked_up_on_hosts_that_the_run_does_not_cover(ansible):
    """As with --limit: be1 is asked, and has this machine's addresses."""
    listed = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True, encoding="utf-8").stdout
    own = next(
        each["local"] for link in json.loads(listed) for each in link["addr_info"]
        if each["scope"] == "global" and each["family"] == "inet"
    )  # fmt: skip
    service = {**SERVICE, "backends": [f"{own}:80", "10.1.2.4:80"]}
    code, out = judge(ansible, {"be1": {}}, datapath_services=[service])
    assert code != 0
    assert f"backend {own} " not in out
    assert "backend 10.1.2.4 is not a node" in out


def test_a_host_that_cannot_be_asked_is_named(ansible):
    down = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    code, out = judge(ansible, {"be1": {"ansible_host": "10.1.2.3"}, "be2": down})
    assert code != 0
    assert "it is no address of be1, be2 (not asked, because unreachable: be2)." in out


PATHS = """\
- hosts: lb1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ebpf.datapath.preflight, tasks_from: inventory}
    - ansible.builtin.include_role: {name: ebpf.datapath.preflight, tasks_from: node}
"""


def test_the_probe_asks_for_the_ways_to_backends(ansible):
    """This machine may be refused for other reasons; its way to a backend is among what is told."""
    device = subprocess.run(["ip", "-o", "route", "get", "10.1.2.3"], capture_output=True, check=True, encoding="utf-8")
    name = device.stdout.split(" dev ")[1].split()[0]
    mtu = int(Path(f"/sys/class/net/{name}/mtu").read_text())
    service = {**SERVICE, "frontends": ["[2001:db8::10]:80/TCP"]}
    variables = {"datapath_lb_dsr_dispatch": "ipip", "datapath_services": [service], "datapath_devices": [name]}
    ansible_output = ansible(PATHS, {"lb_node": {"lb1": {**DSR, **variables}}}, "-v")[1]
    assert f"need {mtu + 20} with dispatch ipip" in ansible_output, ansible_output


# --- groups ---


def test_a_host_is_a_load_balancer_or_a_backend(ansible):
    groups = {"lb_node": {"lb1": {}}, "dsr_backend_node": {"lb1": {}, "be1": {}}}
    code, out = ansible(str(ROOT / "playbooks/targets.yml"), groups)
    assert code != 0
    assert "lb1: in group lb_node and in group dsr_backend_node" in out


SHOW = """\
- ansible.builtin.import_playbook: {root}/playbooks/targets.yml
- hosts: datapath_node:!datapath_target
  gather_facts: false
  tasks: [{{ansible.builtin.debug: {{msg: "backend {{{{ inventory_hostname }}}}"}}}}]
- hosts: datapath_node
  gather_facts: false
  tasks: [{{ansible.builtin.debug: {{msg: "node {{{{ inventory_hostname }}}}"}}}}]
"""


@pytest.mark.parametrize("backends", [None, {"be1": {}}])
def test_the_groups_that_playbooks_work_on(ansible, backends):
    groups = {"lb_node": {"lb1": {}}, "backend_node": {"be3": {}}}
    if backends:
        groups["dsr_backend_node"] = backends
    code, out = ansible(SHOW.format(root=ROOT), groups)
    assert code == 0, out
    assert "WARNING" not in out
    assert ("backend be1" in out, "node be1" in out) == (bool(backends), bool(backends))
    assert "node lb1" in out
    assert "backend lb1" not in out
    assert "node be3" not in out


ROLE = """\
- hosts: be1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ebpf.datapath.dsr_backend}
"""


def test_the_role_asks_for_a_backend_and_for_what_the_inventory_says(ansible, recorder):
    """What reaches the node's command; it has the executor's own parser judge it."""
    variables = {"datapath_executable": str(recorder.command), "datapath_devices": ["eth7"]}
    code, out = ansible(ROLE, {"lb_node": {"lb1": {}}, "dsr_backend_node": {"be1": variables}})
    assert code == 0, out
    document = recorder.document()
    assert document == {"options": {"values": {"devices": ["eth7"], "dsr_backend": True}, "config": {}}}
    parsed = merge(DesiredState(), document)
    assert effective(parsed.options)["datapath-dsr-backend"] is True
