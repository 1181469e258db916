"""Every forwarding mode, dispatch and acceleration one after the other, by the programs as they are built."""

import itertools
import os

import pytest

from datapath.compile.layouts import PEERS
from datapath.kernel import Kernel
from datapath.plan import plan
from datapath.state.kernel_state import KernelState
from lib.tc_hooks import TC_HOOKS, attach_by
from netns.balanced import reach
from netns.topology import NetNS, bpffs, veth

VALUES = (("native", "disabled", "testing-only"), ("dsr", "hybrid", "snat"), ("opt", "ipip", "geneve"))
"""Acceleration, mode, dispatch."""
# In an emulated guest each combination takes seconds: there, each value once.
COMBINATIONS = tuple((zip if "DATAPATH_TEST_KERNEL" in os.environ else itertools.product)(*VALUES))
BASE = {"devices": "eth0", "datapath-snat-port-range": "1024-9999", "bpf-lb-maglev-table-size": 251}
BACKENDS = ["10.9.0.2:80", "10.9.0.3:80"]


@pytest.fixture
def node():
    """A namespace with eth0, 10.9.0.1/24; the test runs inside."""
    with NetNS() as namespace:
        peer = NetNS()
        veth(namespace, "eth0", peer, "eth0")
        namespace.run("ip address add 10.9.0.1/24 dev eth0")
        yield namespace
    namespace.close()
    peer.close()


@pytest.fixture
def kernel(tmp_path, node):
    with bpffs(tmp_path / "bpf") as mounted:
        yield Kernel(mounted / "datapath")


@pytest.fixture(params=TC_HOOKS, autouse=True)
def hooks(request, monkeypatch):
    attach_by(request.param, monkeypatch)


@pytest.fixture
def apply(kernel):
    """Makes the kernel hold these options and a service with these backends; returns what it then holds."""

    def do(backends, **options):
        config = {**BASE, **{name.replace("_", "-"): value for name, value in options.items()}}
        document = {"options": {"config": config}}
        if backends is not None:
            frontends = ["192.0.2.10:80/TCP", "192.0.2.10:80/UDP"]
            document["services"] = {"items": [{"name": "web", "frontends": frontends, "backends": backends}]}
        return reach(kernel, document)

    return do


def test_every_mode_after_every_other(apply, kernel):
    for acceleration, mode, dispatch in COMBINATIONS:
        options = {"bpf_lb_mode": mode, "bpf_lb_dsr_dispatch": dispatch}
        have = apply(BACKENDS, bpf_lb_acceleration=acceleration, **options)
        assert have.load_balancer.foreign == {}
    kernel.reset()
    assert kernel.read().load_balancer is None


def test_tables_with_marks_are_no_drift(apply):
    """Backends that go and come back leave marks and histories, which the executor keeps to itself."""
    for backends in (BACKENDS, BACKENDS[:1], [], BACKENDS, BACKENDS[1:]):
        apply(backends, bpf_lb_mode="dsr")


def test_other_load_balancers_come_and_go(apply):
    """The program is loaded again only where the first comes and the last goes."""
    alone = apply(BACKENDS)
    two = apply(BACKENDS, datapath_lb_peers="10.9.0.1,10.9.0.7")
    three = apply(BACKENDS, datapath_lb_peers="10.9.0.1,10.9.0.7,10.9.0.8")
    assert [len(each.entries[PEERS]) for each in (alone, two, three)] == [0, 2, 3]
    assert two.load_balancer == three.load_balancer
    assert two.load_balancer.config != alone.load_balancer.config
    kept = {str(each.address) for each in three.neighbours}
    assert {"10.9.0.7", "10.9.0.8"} <= kept
    assert "10.9.0.1" not in kept
    assert apply(BACKENDS).load_balancer == alone.load_balancer


def test_a_backend_and_a_load_balancer_come_and_go_by_themselves(apply, kernel):
    both = apply(BACKENDS, datapath_dsr_backend=True)
    assert both.load_balancer is not None
    assert both.node.devices == {"eth0"}
    backend = apply(None, datapath_dsr_backend=True)
    assert (backend.load_balancer, dict(backend.map_sizes)) == (None, {})
    assert backend.node == both.node
    balancer = apply(BACKENDS)
    assert balancer.node is None
    kernel.execute(plan(KernelState(), balancer).operations)
    assert kernel.read().load_balancer is None
