"""What playbooks/reset.yml leaves of endpoints: nothing."""

from __future__ import annotations

from lib import lab, nodes


def test_nodes_are_as_they_were_when_they_were_made():
    arguments = ("--limit", "endpoint_node", "-e", "datapath_reset_confirm=yes")
    said = lab.playbook("reset", *arguments, inventory="inventories/lab_bandwidth")
    assert said.returncode == 0, said.stdout
    for node in ("lb1", "host1"):
        assert nodes.differences(nodes.fresh(node), nodes.snapshot(node)) == [], node
