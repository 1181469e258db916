import struct
from pathlib import Path

import pytest

from datapath.kernel import Kernel, ObjectSource
from datapath.state.model import Hook, Program
from lib.tc_hooks import TC_HOOKS, attach_by
from netns.topology import NetNS, bpffs, compile_object, veth


@pytest.fixture
def pins(tmp_path):
    with bpffs(tmp_path / "bpf") as mounted:
        yield mounted / "datapath"


@pytest.fixture
def peer():
    namespace = NetNS()
    yield namespace
    namespace.close()


@pytest.fixture
def node(peer):
    """A namespace with eth0 (10.9.0.1/24, fd09::1/64); the test runs inside. `peer` has the other end, .2."""
    namespace = NetNS()
    veth(namespace, "eth0", peer, "eth0")
    for side, number in ((namespace, 1), (peer, 2)):
        side.run(f"ip address add 10.9.0.{number}/24 dev eth0")
        side.run(f"ip address add fd09::{number}/64 dev eth0 nodad")
    with namespace:
        yield namespace
    namespace.close()


@pytest.fixture(scope="session")
def objects(tmp_path_factory):
    """Directory with the compiled test objects: those named as the datapath's own, user.o, single.o."""
    directory = tmp_path_factory.mktemp("objects")
    for source in sorted(Path(__file__).parent.glob("objects/*.bpf.c")):
        compile_object(source, directory)
    for name in ("xdp_lb", "tc_lb", "tc_node"):
        (directory / f"{name}.o").rename(directory / f"{name}.bpf.o")
    return directory


@pytest.fixture(params=TC_HOOKS)
def hooks(request, monkeypatch):
    """How programs are attached to tc, one after the other."""
    attach_by(request.param, monkeypatch)
    return request.param


@pytest.fixture
def kernel(pins, objects):
    return Kernel(pins, ObjectSource(objects))


@pytest.fixture
def config():
    """Makes a configuration of the stand-in load balancer."""

    def make(verdict=2, outcome=0, broken=0, table_size=251):
        return struct.pack("=4I", verdict, outcome, broken, table_size)

    return make


@pytest.fixture
def user(objects):
    """Makes a user's program of user.o."""

    def make(function, hook=Hook.NONE, name="one", **more):
        return Program(name, str(objects / "user.o"), function, hook, **more)

    return make
