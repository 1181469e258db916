import errno
import os
import socket
import struct
from contextlib import contextmanager

import pytest

from datapath.compile import layouts
from datapath.kernel import libbpf, load_balancer
from datapath.kernel.abi import XDP_FLAGS_SKB_MODE, AttachType, MapType
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.entries import read_entries
from datapath.kernel.errors import KernelError
from datapath.kernel.maps import Maps
from datapath.plan.operations import DeleteEntry, PrepareMaps, PutEntry, PutLut, RemoveLoadBalancer, SwapLoadBalancer

SIZES = {layouts.SERVICES: 16, layouts.LUTS: 4}
PREPARE = PrepareMaps(SIZES, 251)


def xdp_of(namespace, device="eth0"):
    return namespace.run(f"ip -details link show {device}")


@pytest.fixture
def installed(kernel, node, config):
    kernel.execute([PREPARE, SwapLoadBalancer(config(), {"eth0": "native"})])
    return kernel


def test_attached_natively_and_read_back(installed, node, config):
    assert "xdp" in xdp_of(node)
    assert "xdpgeneric" not in xdp_of(node)
    have = installed.read().load_balancer
    assert have.config == config()
    assert dict(have.attachments) == {"eth0": "native"}
    assert f"tag {have.program_tag}" in xdp_of(node)
    assert have.foreign == {}


def test_replaced_in_place(installed, node, config):
    link = next(installed._pins.links.iterdir())
    with libbpf.closing(libbpf.pinned(link)) as fd:
        before = libbpf.link_info(fd).id
    installed.execute([SwapLoadBalancer(config(verdict=1), {"eth0": "native"})])
    with libbpf.closing(libbpf.pinned(link)) as fd:
        assert libbpf.link_info(fd).id == before
    assert installed.read().load_balancer.config == config(verdict=1)
    assert run(installed) == 1


def run(installed):
    with libbpf.closing(libbpf.pinned(installed._pins.load_balancer)) as program:
        return libbpf.run_program(program, bytes(60))[0]


def test_what_the_verifier_rejects_leaves_the_old_program_and_carries_the_log(installed, node, config):
    before = installed.read()
    with pytest.raises(KernelError) as caught:
        installed.execute(
            [
                PrepareMaps({**SIZES, layouts.SERVICES: 99}, 509),
                PutEntry(layouts.SERVICES, bytes(20), bytes(8)),
                SwapLoadBalancer(config(broken=1, table_size=509), {"eth0": "native"}),
            ]
        )
    assert isinstance(caught.value.operation, SwapLoadBalancer)
    assert caught.value.errno == errno.EACCES
    assert "invalid access to packet" in caught.value.log
    assert installed.read() == before
    assert list(installed._pins.staged.iterdir()) == []


def test_a_table_smaller_than_configured_is_rejected(installed, config):
    with pytest.raises(KernelError) as caught:
        installed.execute([SwapLoadBalancer(config(table_size=253), {"eth0": "native"})])
    assert "invalid access to map value" in caught.value.log


def test_all_devices_or_none(installed, node, peer, config):
    node.run("ip link add plain type veth peer name other")
    before = installed.read()
    with pytest.raises(KernelError, match="there is no device zzz"):
        installed.execute([SwapLoadBalancer(config(verdict=1), {"eth0": "native", "plain": "native", "zzz": "native"})])
    assert installed.read() == before
    assert "xdp" not in xdp_of(node, "plain")


def test_mode_can_change_and_comes_back_when_that_fails(installed, node, config):
    with pytest.raises(KernelError):
        installed.execute([SwapLoadBalancer(config(), {"eth0": "generic", "zzz": "native"})])
    assert dict(installed.read().load_balancer.attachments) == {"eth0": "native"}
    installed.execute([SwapLoadBalancer(config(), {"eth0": "generic"})])
    assert dict(installed.read().load_balancer.attachments) == {"eth0": "generic"}
    assert "xdpgeneric" in xdp_of(node)


def test_devices_that_are_not_wanted_any_more_are_left(installed, node, config):
    node.run("ip link add plain.7 type veth peer name other")
    installed.execute([SwapLoadBalancer(config(), {"plain.7": "native"})])
    assert dict(installed.read().load_balancer.attachments) == {"plain.7": "native"}
    assert "xdp" not in xdp_of(node)


def test_no_native_xdp_is_said_in_words(installed, node, config):
    node.run("ip link add bridge type bridge")
    with pytest.raises(KernelError, match="attaching to bridge in native mode; driver bridge, MTU 1500") as caught:
        installed.execute([SwapLoadBalancer(config(), {"eth0": "native", "bridge": "native"})])
    assert caught.value.errno == errno.EOPNOTSUPP


def test_somebody_else_s_program_is_not_replaced(kernel, node, objects, config):
    words = r"eth0 carries XDP program drop_everything \(id \d+, tag .*ip link set dev eth0 xdp off"
    with loaded(objects / "user.o", "drop_everything") as program:
        index = socket.if_nametoindex("eth0")
        with libbpf.closing(libbpf.link_create(program, index, AttachType.XDP, XDP_FLAGS_SKB_MODE)):
            with pytest.raises(KernelError, match=words):
                kernel.execute([PREPARE, SwapLoadBalancer(config(), {"eth0": "native"})])
            assert "name drop_everything" in xdp_of(node)
    assert kernel.read().load_balancer is None
    assert kernel.read().map_sizes == {}


def test_a_device_that_was_made_again_is_attached_again(installed, node, peer, config):
    node.run("ip link del eth0")
    assert dict(installed.read().load_balancer.attachments) == {}
    node.run("ip link add eth0 type veth peer name other")
    installed.execute([SwapLoadBalancer(config(), {"eth0": "native"})])
    assert dict(installed.read().load_balancer.attachments) == {"eth0": "native"}


def test_resize_keeps_entries_flows_and_counters(installed, node, config):
    flows = [(bytes([number, 0, 0, 0]), bytes(8)) for number in range(200)]
    installed._maps.put(layouts.FLOWS_TCP, flows)
    # Index 2: the program counts nothing there, whatever the peer sends by itself.
    counted = struct.pack("=2Q", 5, 300) * libbpf.possible_cpus()
    installed._maps.put(layouts.OUTCOMES, [(bytes([2, 0, 0, 0]), counted)])
    installed.execute(
        [
            PutEntry(layouts.SERVICES, b"k" * 20, b"\1\0\0\0vvvv"),
            PrepareMaps({layouts.SERVICES: 32, layouts.LUTS: 8, layouts.FLOWS_TCP: 8192, layouts.OUTCOMES: 5}, 509),
            PutLut(1, bytes(4 * 509)),
            SwapLoadBalancer(config(table_size=509), {"eth0": "native"}),
        ]
    )
    have = installed.read()
    assert dict(have.entries[layouts.SERVICES]) == {b"k" * 20: b"\1\0\0\0vvvv"}
    assert have.luts == {1: bytes(4 * 509)}
    assert have.map_sizes[layouts.FLOWS_TCP] == 8192
    assert dict(installed._maps.entries(layouts.FLOWS_TCP)) == dict(flows)
    cpus = libbpf.possible_cpus()
    assert installed.counters(layouts.OUTCOMES)[2] == (5 * cpus, 300 * cpus)
    assert have.load_balancer.foreign == {}


def test_maps_that_are_replaced_together_change_at_once(installed, node, config):
    """Nothing of them is in service before the swap, and what is to be deleted never is."""
    together = frozenset((layouts.BACKENDS, layouts.LUTS, layouts.SERVICES, layouts.ADDRESSES))
    old, stays, new = (letter * 20 for letter in (b"o", b"s", b"n"))
    installed.execute([PutEntry(layouts.SERVICES, old, b"\1\0\0\0vvvv"), PutEntry(layouts.SERVICES, stays, bytes(8))])
    ids, seen = installed._maps.ids(), []

    def in_service(done, _):
        with libbpf.closing(libbpf.pinned(installed._pins.maps / layouts.SERVICES)) as fd:
            seen.append(dict(read_entries(fd)))

    installed.execute(
        [
            PrepareMaps(SIZES, 251, together),
            PutEntry(layouts.SERVICES, new, b"\1\0\0\0wwww"),
            PutLut(1, bytes(4 * 251)),
            SwapLoadBalancer(config(), {"eth0": "native"}),
            DeleteEntry(layouts.SERVICES, old),
        ],
        in_service,
    )
    before, after = {old: b"\1\0\0\0vvvv", stays: bytes(8)}, {new: b"\1\0\0\0wwww", stays: bytes(8)}
    assert seen == [before, before, before, after, after]
    replaced = {name for number, name in ids.items() if number not in installed._maps.ids()}
    # This program has no use for addresses.
    assert replaced == together - {layouts.ADDRESSES}
    assert installed.read().load_balancer.foreign == {}


# --- drift ---


def test_drift_another_program_on_our_link(installed, node, objects):
    with loaded(objects / "user.o", "drop_everything") as other:
        with libbpf.closing(libbpf.pinned(installed._pins.load_balancer_link("eth0"))) as link:
            libbpf.link_update(link, other)
        foreign = installed.read().load_balancer.foreign
    assert foreign["eth0"].startswith("carries XDP program drop_everything (id ")


def test_drift_our_program_on_other_maps(installed, node, config):
    pin = installed._pins.maps / layouts.SERVICES
    with libbpf.closing(libbpf.pinned(pin)) as fd:
        number = libbpf.map_info(fd).id
    pin.unlink()
    with libbpf.closing(libbpf.map_create(MapType.HASH, "services_v1", 20, 8, max_entries=16)) as stranger:
        libbpf.pin(stranger, pin)
    assert installed.read().load_balancer.foreign == {
        "eth0": f"the program uses maps that are not the pinned ones (ids {number})"
    }
    installed.execute([SwapLoadBalancer(config(), {"eth0": "native"})])
    assert installed.read().load_balancer.foreign == {}


def test_drift_link_removed(installed, node, config):
    installed._pins.load_balancer_link("eth0").unlink()
    have = installed.read().load_balancer
    assert (have.config, dict(have.attachments)) == (config(), {})


@contextmanager
def loaded(path, function):
    with BpfObject(path.read_bytes(), "other") as obj:
        obj.load_only((function,))
        obj.load()
        yield obj.program_fd(function)


# --- ends ---


@pytest.mark.parametrize("moment", ["commit", "catch_up"])
def test_killed_in_the_middle_of_a_swap(installed, node, config, moment):
    """Killed once the new program is attached: the next run completes the swap instead of dropping its maps."""
    installed._maps.put(layouts.FLOWS_TCP, [(bytes(4), bytes(8))])
    child = os.fork()
    if child == 0:
        setattr(Maps, moment, lambda _: os._exit(9))
        wanted = [PrepareMaps({**SIZES, layouts.SERVICES: 99}, 251), SwapLoadBalancer(config(1), {"eth0": "native"})]
        installed.execute(wanted)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert "maps that are not the pinned ones" in installed.read().load_balancer.foreign["eth0"]
    installed.execute([])
    have = installed.read()
    assert have.load_balancer.foreign == {}
    assert (have.load_balancer.config, have.map_sizes[layouts.SERVICES]) == (config(1), 99)
    assert dict(installed._maps.entries(layouts.FLOWS_TCP)) == {bytes(4): bytes(8)}


def test_killed_before_the_swap(installed, node, config):
    before = installed.read()
    child = os.fork()
    if child == 0:
        installed._maps.prepare({**SIZES, layouts.SERVICES: 99}, 251)
        os._exit(9)
    os.waitpid(child, 0)
    installed.execute([])
    assert installed.read() == before
    assert list(installed._pins.staged.iterdir()) == []


def test_forwarding_does_not_need_the_process_that_set_it_up(kernel, pins, node, config, objects):
    child = os.fork()
    if child == 0:
        kernel.execute([PREPARE, SwapLoadBalancer(config(), {"eth0": "native"})])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert dict(kernel.read().load_balancer.attachments) == {"eth0": "native"}


def test_remove(installed, node):
    installed.execute([RemoveLoadBalancer()])
    have = installed.read()
    assert (have.load_balancer, have.map_sizes) == (None, {})
    assert "xdp" not in xdp_of(node)


def test_without_devices_the_program_is_kept(kernel, node, config):
    kernel.execute([PREPARE, SwapLoadBalancer(config(), {})])
    have = kernel.read().load_balancer
    assert (have.config, dict(have.attachments)) == (config(), {})


@pytest.mark.usefixtures("hooks")
class TestAtTc:
    """A verdict of 0 lets packets through at tc, and drops them at XDP; 2 the reverse."""

    def attach(self, kernel, config, mode, verdict):
        kernel.execute([SwapLoadBalancer(config(verdict=verdict), {"eth0": mode})])

    def test_attached_and_read_back(self, kernel, node, config):
        kernel.execute([PREPARE, SwapLoadBalancer(config(verdict=0), {"eth0": "tc"})])
        have = kernel.read().load_balancer
        assert (have.config, dict(have.attachments), have.foreign) == (config(verdict=0), {"eth0": "tc"}, {})
        assert "xdp" not in xdp_of(node)
        assert pings(node)
        assert kernel.counters(layouts.OUTCOMES)[0][0] >= 1
        with pytest.raises(KernelError, match="the load balancer runs at tc"):
            kernel.test_run(bytes(64), "eth0")
        self.attach(kernel, config, "tc", verdict=2)
        assert not pings(node)

    def test_from_xdp_and_back_with_the_same_maps(self, installed, node, config):
        maps = installed._maps.ids()
        self.attach(installed, config, "tc", verdict=0)
        assert "xdp" not in xdp_of(node)
        assert dict(installed.read().load_balancer.attachments) == {"eth0": "tc"}
        self.attach(installed, config, "native", verdict=2)
        have = installed.read().load_balancer
        assert (dict(have.attachments), have.foreign) == ({"eth0": "native"}, {})
        assert installed._maps.ids() == maps
        assert "clsact" not in node.run("tc qdisc show dev eth0")
        assert pings(node)

    def test_no_moment_without_a_program(self, installed, node, config, monkeypatch):
        """When the old program goes the new one is attached."""
        seen = []
        leave = load_balancer._leave

        def look(pins, attachments):
            seen.append(sorted((one.at_tc, bool(one.program_id)) for one in load_balancer._attached(pins)))
            leave(pins, attachments)

        monkeypatch.setattr(load_balancer, "_leave", look)
        self.attach(installed, config, "tc", verdict=0)
        self.attach(installed, config, "native", verdict=2)
        assert seen == [[(False, True), (True, True)]] * 2

    def test_killed_between_attaching_and_leaving_is_drift(self, installed, node, config, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(load_balancer, "_leave", lambda pins, attachments: None)
            self.attach(installed, config, "tc", verdict=0)
        foreign = installed.read().load_balancer.foreign
        assert foreign == {"eth0": "carries the load balancer at XDP and at tc"}
        self.attach(installed, config, "tc", verdict=0)
        assert installed.read().load_balancer.foreign == {}

    def test_killed_once_it_is_attached_is_completed(self, installed, node, config):
        child = os.fork()
        if child == 0:
            Maps.commit = lambda _: os._exit(9)
            wanted = [PrepareMaps({**SIZES, layouts.SERVICES: 99}, 251), SwapLoadBalancer(config(0), {"eth0": "tc"})]
            installed.execute(wanted)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        installed.execute([])
        have = installed.read()
        assert have.map_sizes[layouts.SERVICES] == 99
        assert have.load_balancer.foreign == {"eth0": "carries the load balancer at XDP and at tc"}
        self.attach(installed, config, "tc", verdict=0)
        have = installed.read().load_balancer
        assert (dict(have.attachments), have.foreign) == ({"eth0": "tc"}, {})

    def test_a_device_that_is_missing_leaves_xdp_as_it_was(self, installed, node, config):
        before = installed.read()
        with pytest.raises(KernelError, match="there is no device zzz"):
            installed.execute([SwapLoadBalancer(config(), {"eth0": "tc", "zzz": "tc"})])
        assert installed.read() == before
        assert "clsact" not in node.run("tc qdisc show dev eth0")

    def test_remove(self, kernel, node, config, pins):
        kernel.execute([PREPARE, SwapLoadBalancer(config(verdict=2), {"eth0": "tc"})])
        kernel.execute([RemoveLoadBalancer()])
        assert kernel.read().load_balancer is None
        assert pings(node)
        kernel.reset()
        assert not pins.exists()


def pings(namespace):
    return " 0% packet loss" in namespace.run("ping -c 1 -W 1 -n 10.9.0.2", check=False)
