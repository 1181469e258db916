"""Bad input is refused as a whole, with every violation, and what runs goes on as it was."""

from __future__ import annotations

import json
import re

import pytest

from lib import lab

WEB = {"name": "web4", "frontends": [f"{lab.VIP4}:80/TCP"], "backends": ["198.18.21.10:8080"]}

WRONG = {
    "cilium_loadbalancer_mod": "snat",
    "cilium_config_extra_vars": {
        "devices": "eth0",
        "bpf-lb-algoritm": "maglev",
        "bpf-lb-maglev-table-size": 16384,
        "bpf-lb-maglev-hash-seed": "short",
    },
    "datapath_services": [
        WEB,
        {**WEB, "name": "twice"},
        {**WEB, "name": "portless", "frontends": ["192.0.2.11"]},
        {**WEB, "name": "zero", "frontends": ["192.0.2.12:80/TCP"], "backends": ["198.18.21.10:0"]},
        {**WEB, "name": "high", "frontends": ["192.0.2.13:70000/TCP"]},
        {
            **WEB,
            "name": "mixed",
            "frontends": ["192.0.2.14:80/TCP"],
            "backends": ["198.18.21.10:8080", "[2001:db8:0:22::10]:8080"],
        },
        {
            **WEB,
            "name": "heavy",
            "frontends": ["192.0.2.15:80/TCP"],
            "backends": [{"address": "198.18.21.10", "port": 8080, "weight": 65536}],
        },
    ],
}
"""Variables with one violation of each kind."""

TOLD = {
    "unknown variable": r"cilium_loadbalancer_mod\b.*did you mean cilium_loadbalancer_mode\?",
    "unknown key": r"bpf-lb-algoritm\b.*did you mean bpf-lb-algorithm\?",
    "table size": r"bpf-lb-maglev-table-size.* = 16384: .*16381",
    "seed": r'bpf-lb-maglev-hash-seed.* = "short": .*12 bytes',
    "two services with one frontend": r"datapath_services\[1\].*192\.0\.2\.10:80/TCP.*web4",
    "VIP without a port": r"datapath_services\[2\].*192\.0\.2\.11.*port",
    "port 0": r"datapath_services\[3\]\.backends\[0\].*1 to 65535",
    "port 70000": r"datapath_services\[4\]\.frontends\[0\].*70000.*1 to 65535",
    "mixed address families": r"datapath_services\[5\]\.backends\[1\].*2001:db8:0:22::10.*families",
    "weight": r"datapath_services\[6\]\.backends\[0\].*weight.*65536.*65535",
}


def running(node):
    """What the node does: services and backends, and the ids of program and maps in the kernel."""
    services = lab.datapath(node, "service", "list")["services"]
    backends = [[each["name"], each["frontends"], [row["backend"] for row in each["backends"]]] for each in services]
    return backends, lab.shell(
        node, "bpftool net show dev eth0; for m in /sys/fs/bpf/datapath/maps/*; do stat $m; done"
    )


def attempt(action):
    """Do `action` under load; its result, and that neither the nodes nor the clients saw anything of it."""
    before = {node: running(node) for node in lab.LOAD_BALANCERS}
    with lab.Load("--workers", "1", "--keep", "1", *lab.TARGETS) as load:
        result = action()
    assert {node: running(node) for node in lab.LOAD_BALANCERS} == before
    assert lab.failures(load.report) == {}
    return result


@pytest.fixture(scope="module")
def refused():
    return attempt(lambda: lab.playbook("cluster", "--extra-vars", json.dumps(WRONG)))


def test_the_playbook_fails_and_changes_nothing(refused):
    assert refused.returncode != 0
    assert set(re.findall(r"changed=(\d+)", refused.stdout)) == {"0"}


@pytest.mark.parametrize("kind", TOLD)
def test_every_violation_is_told(refused, kind):
    assert re.search(rf"^\s*- .*{TOLD[kind]}", refused.stdout, re.MULTILINE), refused.stdout


@pytest.mark.parametrize(
    ("device", "told"),
    [("eth7", r"eth7 does not exist.*eth0"), ("lo", r"lo\b.*best-effort")],
    ids=["missing", "no native XDP"],
)
def test_a_device_that_cannot_is_refused(device, told):
    variables = {"cilium_config_extra_vars": {"devices": device, "bpf-lb-acceleration": "native"}}
    said = attempt(lambda: lab.playbook("cluster", "--limit", "lb1", "--extra-vars", json.dumps(variables)))
    assert said.returncode != 0
    assert re.search(told, " ".join(said.stdout.split())), said.stdout


def test_maps_that_are_too_small_are_refused():
    """Each one that is full, its size, and the option that enlarges it."""
    sizes = {"bpf-lb-service-map-max": 3, "bpf-lb-service-backend-map-max": 11, "bpf-lb-maglev-map-max": 2}
    variables = {"cilium_config_extra_vars": {"devices": "eth0", **sizes}}
    said = attempt(lambda: lab.playbook("cluster", "--limit", "lb1", "--extra-vars", json.dumps(variables)))
    assert said.returncode != 0
    told = " ".join(said.stdout.split())
    for name, size, option in zip(("services_v1", "backends_v1", "luts_v1"), sizes.values(), sizes):
        assert re.search(rf"map {name} is full: it holds {size} \w+, \d+ are wanted .*{option}", told), said.stdout


def test_the_executor_refuses_by_itself():
    document = {"services": {"items": [{**WEB, "frontends": [f"{lab.VIP4}:0/TCP"], "bakends": []}]}, "option": {}}
    said = attempt(lambda: lab.datapath("lb1", "apply", "-", stdin=json.dumps(document), code=2))
    paths = {error["path"] for error in said["errors"]}
    assert len(paths) >= 3, said
    assert {error["nearest"] for error in said["errors"]} >= {"options", "backends"}
