"""Fixtures: a node, with or without a running agent."""

import pytest

from integration.node import node as make_node


@pytest.fixture
def node(tmp_path):
    """A node without an agent."""
    with make_node(tmp_path) as made:
        yield made


@pytest.fixture
def agent(node):
    """A node with a running agent."""
    node.start()
    return node
