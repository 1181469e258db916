from dataclasses import replace

import pytest

from datapath.compile import CompileErrors, devices, drivers, selected_devices
from datapath.compile.config import read_config
from datapath.compile.drivers import DRIVERS
from datapath.sources.merge import merge as merge_health
from datapath.state.facts import Channels
from unit.state.builders import compiled, desired, device, facts, service


@pytest.mark.parametrize(
    ("driver", "largest"),
    [
        ("ena", 3498), ("mlx5_core", 3498), ("mlx4_en", 3498), ("ixgbe", 3046), ("i40e", 3046), ("ice", 3046),
        ("virtio_net", 3506),
    ],
)  # fmt: skip
def test_the_largest_mtu(driver, largest):
    assert drivers.hindrance(driver, "eth0", largest, None) is None
    found = drivers.hindrance(driver, "eth0", largest + 1, None)
    assert (
        found.reason
        == f"MTU {largest + 1} is above {largest}, the most that driver {driver} takes for XDP in one buffer"
    )
    assert found.remedy == f"ip link set dev eth0 mtu {largest}"


def test_the_mtu_of_the_other_end_counts_for_a_veth():
    assert drivers.hindrance("veth", "eth0", 9000, None, 3506) is None
    assert drivers.hindrance("veth", "eth0", 9000, None, None) is None
    assert drivers.hindrance("veth", "eth0", 1500, None, 9000).remedy == "ip link set dev OTHER_END mtu 3506"


def test_drivers_that_take_several_buffers():
    assert drivers.several_buffers("virtio_net", 9000)
    assert drivers.several_buffers("other", 9000)
    assert not drivers.several_buffers("virtio_net", 1500)
    # Its own frames are as large as what the other end sends.
    assert drivers.several_buffers("veth", 1500, 9000)
    assert not drivers.several_buffers("veth", 9000, 1500)
    assert drivers.hindrance("virtio_net", "eth0", 9000, None, buffers=True) is None


@pytest.mark.parametrize(("used", "wanted"), [(8, 4), (5, 4), (4, None), (1, None)])
def test_ena_needs_half_of_its_channels(used, wanted):
    found = drivers.hindrance("ena", "ens5", 1500, Channels(used, 8))
    assert (found and found.remedy) == (wanted and f"ethtool -L ens5 combined {wanted}")


def test_a_driver_that_the_table_does_not_know():
    assert drivers.hindrance("other", "eth0", 9000, Channels(8, 8)) is None
    assert drivers.advice("other", "eth0") == ""


def test_advice_names_the_device():
    assert "ethtool -K ens1 lro off" in drivers.advice("mlx5_core", "ens1")
    assert not any("DEVICE" in drivers.advice(name, "eth0") for name in DRIVERS)


def test_virtio_queues_for_every_cpu():
    assert drivers.slow_sending("virtio_net", "eth0", Channels(4, 8), 4) is None
    found = drivers.slow_sending("virtio_net", "eth0", Channels(8, 8), 4)
    assert found.remedy == "12 queues at the hypervisor, or ethtool -L eth0 combined 4"
    node = facts(replace(device("eth0", "10.0.0.2/24"), channels=Channels(2, 2)))
    assert any("2 queues are fewer" in warning for warning in compiled(service(), node=node).warnings)


def bonded(native=True):
    ports = [device(name, driver="ena", native=native, reason="MTU 9001 is above 3498") for name in ("eth0", "eth1")]
    ports = [replace(port, native_xdp_remedy="ip link set mtu 3498") for port in ports]
    bond = replace(device("bond0", "10.0.0.2/24", driver="bonding"), kind="bond", lower=("eth0", "eth1"))
    return facts(bond, *ports, default_devices=("bond0",))


def test_a_bond_is_attached_to_at_its_ports():
    found = compiled(service(), node=bonded(), devices="bond0")
    assert found.state.load_balancer.attachments == {"eth0": "native", "eth1": "native"}
    # Requests carry the bond's address, and the kernel's routes lead out of it.
    assert {name for name, value in found.state.sysctls.items() if name.endswith("forwarding")} == {
        f"net.ipv4.conf.{name}.forwarding" for name in ("bond0", "eth0", "eth1")
    }


def test_what_is_tried_are_the_ports():
    merged = merge_health(desired(service(), devices="bond0"))
    assert selected_devices(merged, bonded()) == ("eth0", "eth1")


def test_a_port_that_is_named_too_is_attached_to_once():
    found = compiled(service(), node=bonded(), devices="bond0,eth1")
    assert list(found.state.load_balancer.attachments) == ["eth0", "eth1"]


@pytest.mark.parametrize("acceleration", ["native", "testing-only"])
def test_a_bond_without_ports(acceleration):
    bond = replace(device("bond0", "10.0.0.2/24", driver="bonding"), kind="bond")
    node = facts(bond, default_devices=("bond0",))
    found = compiled(service(), node=node, devices="bond0", bpf_lb_acceleration=acceleration)
    assert "device bond0 is a bond without ports, so nothing is attached for it" in found.warnings


def test_a_refusal_says_why_and_what_to_do():
    with pytest.raises(CompileErrors) as refused:
        compiled(service(), node=bonded(native=False), devices="bond0")
    assert [error.value for error in refused.value.errors] == ["native", "native"]
    first = refused.value.errors[0]
    assert "device eth0 has no native XDP: its driver is ena (MTU 9001 is above 3498)" in first.message
    assert first.allowed.startswith("ip link set mtu 3498; or best-effort")


def test_generic_mode_says_what_native_mode_takes():
    found = compiled(service(), node=bonded(native=False), devices="bond0", bpf_lb_acceleration="best-effort")
    assert found.state.load_balancer.attachments == {"eth0": "generic", "eth1": "generic"}
    assert any(warning.endswith("for native mode: ip link set mtu 3498") for warning in found.warnings)


@pytest.mark.parametrize(
    ("driver", "mtu", "lower", "expected"),
    [
        ("ena", 1500, [], "eth0: driver ena, MTU 1500: native XDP"),
        ("ena", 9001, [], "eth0: driver ena, MTU 9001: native XDP if the kernel's driver takes frames in several"),
        ("tg3", 1500, [], "eth0: driver tg3, MTU 1500: the executor will find out"),
        ("", 1500, ["eth1", "eth2"], "eth0: on top of eth1, eth2, whose drivers decide"),
    ],
)
def test_what_can_be_expected_beforehand(driver, mtu, lower, expected):
    assert drivers.outlook("eth0", driver, mtu, lower).startswith(expected)


@pytest.mark.parametrize(
    ("driver", "mode", "told"),
    [("ice", "native", True), ("veth", "native", False), ("veth", "generic", True), ("veth", "tc", True)],
)
def test_xdp_tx_is_used_where_it_arrives(driver, mode, told):
    node = facts(device("eth0", "10.0.0.2/24", driver=driver))
    assert devices.can_transmit({"eth0": mode}, node) is told


@pytest.mark.parametrize(
    ("several", "acceleration", "asked"),
    [(True, "native", True), (True, "testing-only", False), (True, "disabled", False), (False, "native", False)],
)
def test_the_program_takes_several_buffers_where_it_has_to(several, acceleration, asked):
    node = facts(replace(device("eth0", "10.0.0.2/24"), several_buffers=several))
    found = compiled(service(), node=node, bpf_lb_acceleration=acceleration)
    assert bool(read_config(found.state).multi_buffer) is asked
