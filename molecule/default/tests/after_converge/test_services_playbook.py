"""Services alone, in one round trip."""

from __future__ import annotations

import json
import re

from lib import lab


def changed(*arguments):
    result = lab.playbook("services", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return {int(number) for number in re.findall(r"lb\d.*changed=(\d+)", result.stdout)}


def names(node):
    return {service["name"] for service in lab.datapath(node, "service", "list")["services"]}


def test_services_alone():
    before = {node: names(node) for node in lab.LOAD_BALANCERS}
    assert changed() == {0}
    one = {"name": "web4", "frontends": [f"{lab.VIP4}:80/TCP"], "backends": ["198.18.21.10:8080"]}
    variables = ("-e", json.dumps({"datapath_services": [one]}))
    assert changed("--check", *variables) == {1}
    assert {node: names(node) for node in lab.LOAD_BALANCERS} == before
    assert changed(*variables) == {1}
    assert [names(node) for node in lab.LOAD_BALANCERS] == [{"web4"}] * 2
    assert changed() == {1}
    assert {node: names(node) for node in lab.LOAD_BALANCERS} == before
