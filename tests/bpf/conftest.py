import os
import socket
import subprocess
from pathlib import Path

import pytest

from bpf.rig import MACS, Rig, make_node
from netns.topology import bpffs

REPOSITORY = Path(__file__).parents[2]
OBJECT = REPOSITORY / "build" / "bpf" / "xdp_lb.bpf.o"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in Path(item.fspath).parents and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="loading programs needs root"))


@pytest.fixture(scope="session")
def lb_object():
    """Path of the object under test, built where it is missing or old."""
    subprocess.run(["make", "--silent", "-f", "bpf/build.mk", "bpf"], cwd=REPOSITORY, check=True)
    return OBJECT


@pytest.fixture(scope="session")
def loaded(lb_object, tmp_path_factory):
    """(node, rig): made once, as loading takes longest."""
    before = os.environ.get("DATAPATH_OBJECTS")
    os.environ["DATAPATH_OBJECTS"] = str(lb_object.parent)
    node, peer = make_node()
    with bpffs(tmp_path_factory.mktemp("bpffs")) as pins:
        with node:
            rig = Rig(pins / "datapath")
            rig.devices = {device: socket.if_nametoindex(device) for device in MACS}
        rig.node, rig.peer = node, peer
        yield node, rig
        with node:
            rig.kernel.reset()
    node.close()
    peer.close()
    if before is None:
        del os.environ["DATAPATH_OBJECTS"]
    else:
        os.environ["DATAPATH_OBJECTS"] = before


@pytest.fixture
def rig(loaded):
    """The rig in its first state; the test runs in the node's namespace."""
    node, rig = loaded
    with node:
        rig.restore()
        yield rig
