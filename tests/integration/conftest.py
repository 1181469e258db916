"""Fixtures: a node, with or without a running agent, and the store of a cluster."""

import pytest

from integration.node import node as make_node
from lib.etcd import Authority, etcd


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


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shared(authority, tmp_path_factory):
    with etcd(tmp_path_factory.mktemp("etcd"), authority, "c1") as made:
        yield made


@pytest.fixture
def store(shared):
    """The store of cluster c1, which is empty but for its users."""
    shared.delete("--prefix", "cilium/")
    return shared
