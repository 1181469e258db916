import os
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bpf.rig import MACS, SIDES, WEB, Rig, end, make_node
from datapath.agent import trace as tracing
from datapath.agent.core import Agent
from datapath.agent.paths import Paths
from datapath.compile import layouts
from datapath.kernel import Kernel, libbpf
from datapath.kernel.entries import read_entries
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


@contextmanager
def on_a_node(lb_object, pins, hook):
    """(node, rig): made once for each hook, as loading takes longest."""
    before = os.environ.get("DATAPATH_OBJECTS")
    os.environ["DATAPATH_OBJECTS"] = str(lb_object.parent)
    node, peer = make_node()
    with bpffs(pins) as mounted:
        with node:
            rig = Rig(mounted / "datapath", hook)
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


@pytest.fixture(scope="session")
def loaded(lb_object, tmp_path_factory):
    with on_a_node(lb_object, tmp_path_factory.mktemp("bpffs"), "xdp") as made:
        yield made


@pytest.fixture(scope="session")
def loaded_at_tc(lb_object, tmp_path_factory):
    with on_a_node(lb_object, tmp_path_factory.mktemp("bpffs"), "tc") as made:
        yield made


@pytest.fixture
def hook(request):
    """Where the program runs, as `parametrize` says (indirect)."""
    return getattr(request, "param", "xdp")


@pytest.fixture
def rig(hook, request):
    """The rig in its first state; the test runs in the node's namespace."""
    node, rig = request.getfixturevalue({"xdp": "loaded", "tc": "loaded_at_tc"}[hook])
    with node:
        rig.restore()
        yield rig


@pytest.fixture
def snapshot(rig):
    """Contents of every map of the program, byte for byte."""

    def take():
        found = {}
        for path in sorted((rig._pins / "maps").iterdir()):
            with libbpf.closing(libbpf.pinned(path)) as fd:
                found[path.name] = dict(read_entries(fd))
        assert {layouts.FLOWS_TCP, layouts.FLOWS_ANY, layouts.OUTCOMES, "answer_budget_v1"} <= found.keys()
        return found

    return take


@pytest.fixture(scope="module")
def second_instances():
    """`Kernel.second_instance` that keeps what it makes: loading is most of what a trace costs."""
    original, made = Kernel.second_instance, {}
    with ExitStack() as stack:

        @contextmanager
        def second_instance(kernel):
            pins = kernel._pins
            with libbpf.closing(libbpf.pinned(pins.load_balancer) or libbpf.pinned(pins.tc_load_balancer)) as fd:
                loaded = libbpf.program_info(fd).id
            if loaded not in made:
                made[loaded] = stack.enter_context(original(kernel))
            yield made[loaded]

        yield second_instance


@pytest.fixture
def trace(rig, snapshot, second_instances, monkeypatch, tmp_path):
    """Trace a packet; the node must be the same afterwards."""
    monkeypatch.setattr(Kernel, "second_instance", second_instances)
    agent = Agent(rig.kernel, Paths(tmp_path))

    def ask(version, protocol="tcp", *, port=WEB, sport=20000, source=None, destination=None, **more):
        side = SIDES[version]
        words = {
            "source": end(source or side.client, sport),
            "destination": f"{end(destination or side.vip, port)}/{protocol}",
            **{name: str(value) for name, value in more.items()},
        }
        before = snapshot()
        told = tracing.trace(agent, words)
        assert snapshot() == before
        assert told["disagreements"] == []
        return told

    return ask
