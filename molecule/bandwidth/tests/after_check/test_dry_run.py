"""The scenario's dry run has told what it would do, and done nothing."""

from __future__ import annotations

import pytest

from lib import nodes


@pytest.mark.parametrize("node", ["lb1", "host1"])
def test_nodes_are_as_they_were(node):
    assert nodes.differences(nodes.fresh(node), nodes.snapshot(node)) == []
