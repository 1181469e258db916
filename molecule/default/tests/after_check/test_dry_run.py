"""`--check --diff` on a fresh node tells what it would do, and does nothing."""

from __future__ import annotations

import re

import pytest

from lib import lab, nodes


@pytest.fixture(scope="module")
def dry_run():
    """One more dry run, after the scenario's own: what it said, and the nodes after both."""
    said = lab.playbook("cluster", "--check", "--diff")
    return said, {node: nodes.snapshot(node) for node in lab.LOAD_BALANCERS}


def test_it_succeeds(dry_run):
    assert dry_run[0].returncode == 0, dry_run[0].stdout


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_it_predicts_changes(dry_run, node):
    assert int(re.search(rf"^{node} .*changed=(\d+)", dry_run[0].stdout, re.MULTILINE).group(1)) > 0


@pytest.mark.parametrize(
    "entry", [f"{lab.VIP4}:80/TCP", f"[{lab.VIP6}]:80/TCP", f"{lab.VIP4}:53/UDP", "198.18.21.10:8080", "eth0"]
)
def test_its_diff_goes_down_to_map_entries(dry_run, entry):
    assert any(line.startswith("+") and entry in line for line in map(str.strip, dry_run[0].stdout.splitlines()))


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_nodes_are_as_they_were(dry_run, node):
    assert nodes.differences(nodes.fresh(node), dry_run[1][node]) == []
