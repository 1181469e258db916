import ipaddress

from datapath.kernel import devices
from datapath.kernel.devices import GENERIC, NATIVE
from datapath.plan.operations import PrepareMaps, SwapLoadBalancer
from datapath.state.facts import NextHop


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
    assert found["br0"].native_xdp_reason == (
        "driver bridge refuses a native XDP program: Operation not supported (MTU 1500)"
    )
    assert devices.read(None, probe_native=True)["eth0"].native_xdp is None


def test_too_large_an_mtu_for_native_xdp(node, peer):
    node.run("ip link set eth0 mtu 9000")
    peer.run("ip link set eth0 mtu 9000")
    found = devices.read(["eth0"], probe_native=True)["eth0"]
    assert found.native_xdp is False
    assert found.native_xdp_reason.endswith("(MTU 9000)")


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
