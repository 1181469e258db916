import os

import pytest

from bpf.conftest import OBJECT, on_a_node


@pytest.fixture(scope="session")
def rig(tmp_path_factory):
    """The rig; tests run in the node's namespace."""
    if os.geteuid() != 0:
        pytest.skip("loading programs needs root")
    with on_a_node(OBJECT, tmp_path_factory.mktemp("bpffs"), "xdp") as (node, made), node:
        yield made
