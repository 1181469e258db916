import errno
import shutil
import struct

import pytest

from datapath.kernel import Kernel, ObjectSource, libbpf
from datapath.kernel.errors import KernelError
from datapath.plan import plan
from datapath.plan.operations import PrepareMaps, PutNode, PutProgram, RemoveNode, SwapLoadBalancer
from datapath.state.kernel_state import KernelState, NodePrograms
from datapath.state.model import Hook

OK, SHOT = 0, 2


def config(verdict=OK, broken=0):
    return struct.pack("=2I", verdict, broken)


def put(kernel, *devices, **fields):
    wanted = NodePrograms(config(**fields), frozenset(devices))
    kernel.execute([PutNode(wanted)])
    return wanted


def pings(namespace):
    return " 0% packet loss" in namespace.run("ping -c 1 -W 1 -n 10.9.0.2", check=False)


def counted(pins):
    """Packets by direction: ingress, egress."""
    with libbpf.closing(libbpf.pinned(pins / "node_maps" / "replies_v1")) as fd:
        found = [libbpf.map_lookup(fd, struct.pack("=I", key), 8) for key in (0, 1)]
    return [struct.unpack("=Q", each)[0] if each else 0 for each in found]


@pytest.mark.usefixtures("hooks")
class TestBothHooks:
    def test_sees_both_directions_and_is_read_back(self, kernel, node, pins):
        wanted = put(kernel, "eth0")
        assert kernel.read().node == wanted
        assert pings(node)
        assert all(counted(pins))

    def test_what_is_there_already_needs_nothing(self, kernel, node):
        want = KernelState(node=put(kernel, "eth0"))
        assert plan(want, kernel.read()).operations == ()

    def test_replaced_in_place_with_what_it_remembers(self, kernel, node, pins):
        put(kernel, "eth0")
        assert pings(node)
        before = counted(pins)
        wanted = put(kernel, "eth0", verdict=SHOT)
        assert kernel.read().node == wanted
        assert not pings(node)
        assert all(after >= packets for after, packets in zip(counted(pins), before))

    def test_what_the_verifier_rejects_leaves_the_old_programs_and_carries_the_log(self, kernel, node, pins):
        wanted = put(kernel, "eth0")
        with pytest.raises(KernelError) as caught:
            put(kernel, "eth0", broken=1)
        assert caught.value.errno == errno.EACCES
        assert "invalid access to packet" in caught.value.log
        assert kernel.read().node == wanted
        assert list((pins / "staged").iterdir()) == []

    def test_all_devices_or_none(self, kernel, node):
        wanted = put(kernel, "eth0")
        with pytest.raises(KernelError, match="there is no device zzz"):
            put(kernel, "eth0", "zzz", verdict=SHOT)
        assert kernel.read().node == wanted
        assert pings(node)

    def test_a_device_that_is_not_wanted_any_more_is_left(self, kernel, node):
        node.run("ip link add plain.7 type veth peer name other")
        put(kernel, "eth0", "plain.7", verdict=SHOT)
        wanted = put(kernel, "plain.7", verdict=SHOT)
        assert kernel.read().node == wanted
        assert pings(node)

    def test_a_device_that_was_made_again_is_attached_again(self, kernel, node):
        node.run("ip link add plain type veth peer name other")
        wanted = put(kernel, "plain")
        node.run("ip link del plain")
        assert kernel.read().node.devices == frozenset()
        node.run("ip link add plain type veth peer name other")
        operations = plan(KernelState(node=wanted), kernel.read()).operations
        kernel.execute(operations)
        assert kernel.read().node == wanted

    def test_half_of_it_is_drift_that_the_plan_heals(self, kernel, node, hooks, pins):
        wanted = put(kernel, "eth0")
        if hooks == "tcx":
            with libbpf.closing(libbpf.pinned(pins / "links" / "tc_node_egress_eth0")) as fd:
                libbpf.link_detach(fd)
        else:
            node.run("tc filter del dev eth0 egress")
        have = kernel.read()
        assert have.node.problems == {"eth0": "tc_node_egress not attached"}
        kernel.execute(plan(KernelState(node=wanted), have).operations)
        assert kernel.read().node == wanted

    def test_remove_leaves_nothing(self, kernel, node, pins):
        put(kernel, "eth0", verdict=SHOT)
        kernel.execute([RemoveNode()])
        assert kernel.read().node is None
        assert pings(node)
        assert "clsact" not in node.run("tc qdisc show dev eth0")
        kernel.reset()
        assert not pins.exists()

    def test_reset_removes_it(self, kernel, node, pins):
        put(kernel, "eth0", verdict=SHOT)
        kernel.reset()
        assert pings(node)
        assert not pins.exists()

    def test_beside_a_user_s_program(self, kernel, node, user):
        program = user("tc_pass", Hook.TC, device="eth0", direction="ingress")
        wanted = kernel.inspect_program(program)
        kernel.execute([PutProgram(wanted)])
        node_programs = put(kernel, "eth0")
        have = kernel.read()
        assert have.node == node_programs
        assert list(have.programs) == ["one"]

    def test_the_load_balancer_is_not_needed_and_not_loaded(self, kernel, node):
        put(kernel, "eth0")
        have = kernel.read()
        assert have.load_balancer is None
        assert have.map_sizes == {}


def test_a_larger_map_takes_over_what_is_remembered(kernel, node, pins, objects, tmp_path):
    put(kernel, "eth0")
    assert pings(node)
    before = counted(pins)
    for name in ("xdp_lb.bpf.o", "tc_lb.bpf.o"):
        shutil.copy(objects / name, tmp_path / name)
    shutil.copy(objects / "tc_node_large.o", tmp_path / "tc_node.bpf.o")
    put(Kernel(pins, ObjectSource(tmp_path)), "eth0")
    with libbpf.closing(libbpf.pinned(pins / "node_maps" / "replies_v1")) as fd:
        assert libbpf.map_info(fd).max_entries == 4096
    assert all(after >= packets > 0 for after, packets in zip(counted(pins), before))


def test_together_with_the_load_balancer(kernel, node, config_of_lb):
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config_of_lb, {"eth0": "tc"})])
    wanted = put(kernel, "eth0")
    have = kernel.read()
    assert have.node == wanted
    assert dict(have.load_balancer.attachments) == {"eth0": "tc"}
    kernel.execute([RemoveNode()])
    assert dict(kernel.read().load_balancer.attachments) == {"eth0": "tc"}


@pytest.fixture
def config_of_lb():
    return struct.pack("=4I", OK, 0, 0, 251)
