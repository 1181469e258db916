import ipaddress

import pytest

from datapath.kernel import devices
from datapath.kernel.devices import GENERIC, NATIVE
from datapath.plan.operations import PrepareMaps, SwapLoadBalancer
from datapath.state.facts import Channels, NextHop, Tag


def made(node, command):
    """Run what not every kernel can; there the test is skipped."""
    try:
        node.run(command)
    except AssertionError as refused:
        reasons = ("Unknown device type", "Operation not supported", "open: No such file or directory")
        if not any(each in str(refused) for each in reasons):
            raise
        pytest.skip("this kernel has no such devices")


def test_what_a_device_is(node):
    node.run("ip link set eth0 mtu 1400 address 02:00:00:00:09:01")
    found = devices.read(["eth0", "absent"], probe_native=False)
    assert set(found) == {"eth0"}
    eth0 = found["eth0"]
    assert (eth0.driver, eth0.mac, eth0.mtu, eth0.up, eth0.native_xdp) == (
        "veth", "02:00:00:00:09:01", 1400, True, None,
    )  # fmt: skip
    assert [str(one) for one in eth0.addresses][:2] == ["10.9.0.1/24", "fd09::1/64"]


def test_all_devices(node):
    assert set(devices.read(None, probe_native=False)) == {"lo", "eth0"}


def test_native_xdp_is_probed_and_leaves_nothing(node):
    assert devices.read(["eth0"], probe_native=True)["eth0"].native_xdp is True
    assert "xdp" not in node.run("ip link show eth0")


def test_no_native_xdp(node):
    node.run("ip link add br0 type bridge")
    found = devices.read(["lo", "br0"], probe_native=True)
    assert found["lo"].native_xdp is False
    assert found["br0"].native_xdp is False
    assert found["br0"].native_xdp_reason.startswith("driver bridge ")
    assert found["lo"].native_xdp_reason.startswith("a device without driver ")


def test_without_declared_features_the_attempt_decides(node, monkeypatch):
    monkeypatch.setattr(devices, "xdp_features", lambda _: None)
    node.run("ip link add br0 type bridge")
    found = devices.read(["eth0", "br0"], probe_native=True)
    assert found["eth0"].native_xdp is True
    assert found["br0"].native_xdp is False
    # The kernel's words begin with a capital since 6.1.
    assert found["br0"].native_xdp_reason.lower() == (
        "driver bridge refuses a native xdp program:"
        " underlying driver does not support xdp in native mode (operation not supported)"
    )
    assert devices.read(None, probe_native=True)["eth0"].native_xdp is None


@pytest.fixture
def one_buffer(monkeypatch):
    """Driver or kernel does not take frames in several buffers, as before 6.3."""
    monkeypatch.setattr(devices, "_takes_several_buffers", lambda _: False)


def test_frames_in_several_buffers(node, peer):
    """What the driver says of itself, and what it does; kernels that redirect such frames let drivers declare it."""
    if devices.xdp_features(devices.links()["eth0"].index) is None:
        pytest.skip("this kernel redirects no such frames")
    for namespace in (node, peer):
        namespace.run("ip link set eth0 mtu 9000")
    for names in (None, ["eth0"]):
        found = devices.read(names, probe_native=True)["eth0"]
        assert found.several_buffers
        assert found.native_xdp is not False
    assert found.native_xdp is True


def test_too_large_an_mtu_for_native_xdp(node, peer, one_buffer):
    node.run("ip link set eth0 mtu 9000")
    peer.run("ip link set eth0 mtu 9000")
    found = devices.read(["eth0"], probe_native=True)["eth0"]
    assert found.native_xdp is False
    # in the driver's own words, then by the table
    assert "veth: Peer MTU is too large to set XDP (Numerical result out of range)" in found.native_xdp_reason
    assert found.native_xdp_reason.endswith(
        "MTU 9000 is above 3506, the most that driver veth takes for XDP in one buffer"
    )
    assert found.native_xdp_remedy == "ip link set dev OTHER_END mtu 3506"
    assert "xdp" not in node.run("ip link show eth0")


@pytest.mark.parametrize(("mtu", "native"), [(3506, True), (3507, False)])
def test_the_table_and_the_driver_agree_about_the_largest_mtu(node, peer, one_buffer, mtu, native):
    """Predicted (a dry run, all devices) and tried (named devices)."""
    peer.run(f"ip link set eth0 mtu {mtu}")
    # What an older kernel's driver does not declare is not predicted.
    fitting = True if devices.xdp_features(devices.links()["eth0"].index) is not None else None
    assert devices.read(None, probe_native=True)["eth0"].native_xdp is (fitting if native else False)
    assert devices.read(["eth0"], probe_native=True)["eth0"].native_xdp is native


def test_why_not_is_told_without_declared_features_too(node, peer, one_buffer, monkeypatch):
    monkeypatch.setattr(devices, "xdp_features", lambda _: None)
    assert devices.read(None, probe_native=True)["eth0"].native_xdp is None
    peer.run("ip link set eth0 mtu 4000")
    assert devices.read(None, probe_native=True)["eth0"].native_xdp is False


def test_fewer_receive_queues_than_the_other_end_sends_by(node, monkeypatch):
    node.run("ip link add eth1 type veth peer name other numtxqueues 2")
    made(node, "ethtool -L other tx 2")
    found = devices.read(["eth1", "other"], probe_native=True)
    assert found["eth1"].native_xdp is False
    assert "receive queues" in found["eth1"].native_xdp_remedy
    assert found["other"].native_xdp is True
    # Older kernels declare nothing; the attempt tells.
    monkeypatch.setattr(devices, "xdp_features", lambda _: None)
    tried = devices.read(["eth1"], probe_native=True)["eth1"]
    assert "number of rx queues not less than peer tx queues" in tried.native_xdp_reason
    assert "receive queues" in tried.native_xdp_remedy


def test_a_device_on_top_of_another(node):
    node.run("ip link add link eth0 name mv0 type macvlan")
    found = devices.read(["mv0"], probe_native=True)["mv0"]
    assert (found.kind, found.native_xdp, found.native_xdp_remedy) == (
        "macvlan", False, "best-effort attaches in generic mode",
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "native"), [("tun", False), ("tap", True)])
def test_tun_and_tap(node, mode, native):
    """Frames of tap meet XDP in the driver, packets of tun do not."""
    made(node, f"ip tuntap add dev t0 mode {mode}")
    assert devices.read(["t0"], probe_native=True)["t0"].native_xdp is native


def test_a_vlan_has_a_parent(node):
    made(node, "ip link add link eth0 name eth0.7 type vlan id 7")
    found = devices.read(["eth0.7"], probe_native=True)["eth0.7"]
    assert (found.kind, found.lower, found.native_xdp) == ("vlan", ("eth0",), False)
    assert found.tag == Tag(0x8100, 7)


def test_a_bond_has_ports(node):
    made(node, "ip link add bond0 type bond mode active-backup")
    node.run("ip link add b1 type veth peer name b2")
    node.run("ip link set b1 master bond0")
    assert devices.read(["bond0"], probe_native=False)["bond0"].lower == ("b1",)


def test_channels(node):
    node.run("ip link add eth1 numtxqueues 4 numrxqueues 4 type veth peer name other numtxqueues 4 numrxqueues 4")
    made(node, "ethtool -L eth1 rx 3")
    found = devices.read(["eth1", "lo"], probe_native=False)
    assert found["eth1"].channels == Channels(3, 4)
    assert found["lo"].channels is None


def test_an_attached_program_is_not_disturbed_by_the_probe(kernel, node, config):
    for mode in (NATIVE, GENERIC):
        kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config(), {"eth0": mode})])
        before = devices.links()["eth0"]
        # Where drivers do not declare it (before 6.3), nobody can tell while a generic program is attached.
        declared = devices.xdp_features(before.index) is not None
        expected = True if mode == NATIVE or declared else None
        assert devices.read(["eth0"], probe_native=True)["eth0"].native_xdp is expected
        assert devices.links()["eth0"] == before
        assert before.xdp_mode == mode


def test_a_veth_knows_whether_its_peer_carries_a_program(kernel, node, peer, config):
    assert devices.read(["eth0"], probe_native=False)["eth0"].peer_xdp is False
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config(), {"eth0": NATIVE})])
    with peer:
        assert devices.read(["eth0"], probe_native=False)["eth0"].peer_xdp is True
    kernel.execute([SwapLoadBalancer(config(), {"eth0": GENERIC})])
    with peer:
        assert devices.read(["eth0"], probe_native=False)["eth0"].peer_xdp is False


def test_a_veth_whose_peer_is_beside_it(node):
    node.run("ip link add eth1 type veth peer name other")
    found = devices.read(None, probe_native=False)
    assert (found["eth1"].peer_xdp, found["other"].peer_xdp, found["lo"].peer_xdp) == (False, False, None)


def test_routes(node, peer):
    assert devices.routes().default_devices == ()
    node.run("ip link add eth1 type veth peer name other")
    node.run("ip link set eth1 up")
    node.run("ip link set other up")
    node.run("ip address add 10.8.0.1/24 dev eth1")
    node.run("ip route add 10.20.0.0/16 nexthop via 10.9.0.2 nexthop via 10.8.0.2")
    node.run("ip -4 route add default via inet6 fd09::7 dev eth0")
    node.run("ip -6 route add default via fd09::2")
    node.run("ip route add 10.99.0.0/16 via 10.9.0.9 table 77")
    routes = devices.routes()
    assert routes.default_devices == ("eth0",)
    assert set(routes.gateways) == {
        NextHop(device, ipaddress.ip_address(gateway))
        for device, gateway in [("eth0", "10.9.0.2"), ("eth1", "10.8.0.2"), ("eth0", "fd09::7"), ("eth0", "fd09::2")]
    }
