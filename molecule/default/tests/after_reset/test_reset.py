"""What playbooks/reset.yml leaves: nothing."""

from __future__ import annotations

import pytest

from lib import lab, nodes


@pytest.fixture(scope="module")
def reset():
    unconfirmed = lab.playbook("reset", "--limit", "lb_node")
    before = [lab.datapath(node, "status")["devices"] for node in lab.LOAD_BALANCERS]
    confirmed = lab.playbook("reset", "--limit", "lb_node", "-e", "datapath_reset_confirm=yes")
    return unconfirmed, before, confirmed


def test_it_does_nothing_unless_told(reset):
    unconfirmed, before, _ = reset
    assert unconfirmed.returncode != 0
    assert all("eth0" in devices for devices in before)


def test_it_succeeds(reset):
    assert reset[2].returncode == 0, reset[2].stdout


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_nodes_are_as_they_were_when_they_were_made(reset, node):
    assert nodes.differences(nodes.fresh(node), nodes.snapshot(node)) == []


def test_backends_are_reached_without_it(reset):
    assert lab.failures(lab.load("--count", 50, "tcp:198.18.21.10:8080")) == {}
