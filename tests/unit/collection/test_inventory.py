"""Tier one of role preflight, as Ansible runs it: the inventory is judged without any node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: ebpf.datapath.preflight
        tasks_from: inventory
    - ansible.builtin.copy:
        content: "{{ seen | to_json }}"
        dest: "{{ result }}"
        mode: "0600"
      delegate_to: localhost
      vars:
        seen:
          effective: "{{ preflight_desired.effective }}"
          document: "{{ lookup('ebpf.datapath.desired_state') }}"
"""


@pytest.fixture
def judge(tmp_path):
    """Runs tier one over these variables of a host that nobody could connect to; returns result and message."""

    def run(**variables):
        result = tmp_path / "result.json"
        inventory = {"all": {"hosts": {"node": {"ansible_host": "192.0.2.255", **variables, "result": str(result)}}}}
        (tmp_path / "hosts.json").write_text(json.dumps(inventory), encoding="utf-8")
        (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", tmp_path / "hosts.json", tmp_path / "play.yml"],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "false"},
        )
        return (json.loads(result.read_text()) if done.returncode == 0 else None), done.stdout + done.stderr

    return run


def test_only_what_is_set_is_asked_for(judge):
    result, out = judge(
        cilium_loadbalancer_mode="snat", cilium_enable_ipv6=None, cilium_config_extra_vars={"enable-ipv4": "True"}
    )
    assert result, out
    assert result["document"] == {"options": {"values": {"mode": "snat"}, "config": {"enable-ipv4": "True"}}}
    assert result["effective"]["enable-ipv4"] is True
    assert result["effective"]["enable-ipv6"] is True


def test_templates_are_resolved_at_every_depth(judge):
    service = {
        "name": "web",
        "frontends": ["{{ vip }}:80/TCP"],
        "backends": [{"address": "{{ hosts[0] }}:80", "weight": "{{ 30 * 2 }}"}],
    }
    result, out = judge(vip="192.0.2.10", hosts=["10.0.0.1"], datapath_services=["{{ one }}"], one=service)
    assert result, out
    assert result["document"]["services"] == {
        "items": [
            {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": [{"address": "10.0.0.1:80", "weight": 60}]}
        ],
        "purge": True,
    }


MANIFESTS = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 192.0.2.10, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
"""


def test_manifests_are_files_or_documents(judge, tmp_path):
    (tmp_path / "shop.yml").write_text(MANIFESTS)
    one = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}}
    one["spec"] = {"clusterIP": "{{ vip }}", "ports": [{"port": 80}]}
    result, out = judge(vip="192.0.2.11", datapath_service_manifests=["shop.yml", one])
    assert result, out
    section = result["document"]["services"]
    assert [each["kind"] for each in section["manifests"][0]["items"]] == ["Service", "EndpointSlice"]
    assert section["manifests"][1]["spec"]["clusterIP"] == "192.0.2.11"
    assert (section["purge"], "items" in section) == (True, False)


def test_what_is_wrong_with_manifests_is_told_by_their_place(judge, tmp_path):
    (tmp_path / "shop.yml").write_text(MANIFESTS.replace("addressType: IPv4", "addressType: IPv6"))
    result, out = judge(datapath_service_manifests=["shop.yml"])
    assert result is None
    assert "datapath_service_manifests[0].items[1].endpoints[0].addresses[0]" in out
    result, out = judge(datapath_service_manifests=["absent.yml"])
    assert result is None
    assert "absent.yml: No such file" in out.replace("[Errno 2] ", "").replace(f"{tmp_path}/", "")


def test_everything_wrong_is_told_at_once_by_the_inventory_s_own_names(judge):
    result, out = judge(
        cilium_loadbalancer_mode="dsrr",
        cilium_lodbalancer_mode="snat",
        cilium_enable_hubble=True,
        cilium_config_extra_vars={"bpf-lb-algoritm": "maglev"},
        datapath_services=[{"name": "web", "frontends": ["192.0.2.10"], "backends": ["10.0.0.1:70000"]}],
    )
    assert result is None
    for expected in (
        "cilium_loadbalancer_mode",
        "did you mean cilium_loadbalancer_mode?",
        "cilium_enable_hubble: not implemented in this version: Hubble",
        "cilium_config_extra_vars.bpf-lb-algoritm",
        "did you mean bpf-lb-algorithm?",
        "datapath_services[0].frontends[0]",
        "datapath_services[0].backends[0]",
    ):
        assert expected in out


def test_variables_of_others_are_let_be_when_they_are_named(judge):
    result, out = judge(cilium_version="1.20.1", datapath_foreign_variables=["cilium_version"])
    assert result, out
    assert judge(cilium_version="1.20.1")[0] is None
