import struct
from dataclasses import replace

import pytest

from datapath.compile import CompileErrors
from datapath.compile.config import read_config
from datapath.compile.layouts import VLANS_IN, VLANS_OUT, Vlan
from datapath.state.facts import Tag
from unit.state.builders import compiled, device, facts, service

CUSTOMER, PROVIDER = 0x8100, 0x88A8


def vlan(name, index, lower, tag, *addresses):
    return replace(
        device(name, *addresses, driver="802.1Q VLAN Support", native=False),
        index=index, kind="vlan", lower=(lower,), tag=tag,
    )  # fmt: skip


def port(name="eth0", index=2, **fields):
    return replace(device(name, driver="ice"), index=index, **fields)


def node(*ports, lower="eth0", more=()):
    below = vlan("eth0.7", 7, lower, Tag(CUSTOMER, 7), "10.0.0.2/24")
    return facts(*(ports or (port(),)), below, *more, default_devices=("eth0.7",))


def way(packed):
    stored = Vlan.from_buffer_copy(packed)
    return stored.device, [(tag.protocol, tag.control) for tag in stored.tags if tag.protocol]


def ways(found):
    """(leaving, arriving): index of the VLAN device -> (device, tags), and the reverse."""
    leaving = {struct.unpack("=I", key)[0]: way(value) for key, value in found.state.entries[VLANS_OUT].items()}
    arrivals = {}
    for key, value in found.state.entries[VLANS_IN].items():
        arrivals.setdefault(struct.unpack("=I", value)[0], []).append(way(key))
    return leaving, arrivals


def test_a_vlan_is_attached_to_at_its_parent():
    found = compiled(service(), node=node(), devices="eth0.7")
    assert found.state.load_balancer.attachments == {"eth0": "native"}
    assert ways(found) == ({7: (2, [(CUSTOMER, 7)])}, {7: [(2, [(CUSTOMER, 7)])]})
    assert read_config(found.state).vlans == 1
    # Routes are asked for the VLAN.
    assert found.state.sysctls["net.ipv4.conf.eth0.7.forwarding"] == "1"


def test_vlans_that_are_not_served_still_lead_somewhere():
    other = vlan("eth0.8", 8, "eth0", Tag(CUSTOMER, 8))
    leaving, arriving = ways(compiled(service(), node=node(more=(other,)), devices="eth0.7"))
    assert (set(leaving), set(arriving)) == ({7, 8}, {7})


def test_a_tag_in_a_tag():
    outer = vlan("eth0.100", 100, "eth0", Tag(PROVIDER, 100))
    leaving, arriving = ways(compiled(service(), node=node(port(), lower="eth0.100", more=(outer,)), devices="eth0.7"))
    tags = [(PROVIDER, 100), (CUSTOMER, 7)]
    assert leaving == {100: (2, tags[:1]), 7: (2, tags)}
    assert arriving == {7: [(2, tags)]}


def test_a_vlan_on_a_bond_comes_in_by_its_ports():
    ports = port("eth0", 2), port("eth1", 3)
    bond = replace(device("bond0", driver="bonding", native=False), index=4, kind="bond", lower=("eth0", "eth1"))
    found = compiled(service(), node=node(*ports, lower="bond0", more=(bond,)), devices="eth0.7")
    assert found.state.load_balancer.attachments == {"eth0": "native", "eth1": "native"}
    leaving, arriving = ways(found)
    assert leaving == {7: (4, [(CUSTOMER, 7)])}
    assert sorted(arriving[7]) == [(2, [(CUSTOMER, 7)]), (3, [(CUSTOMER, 7)])]


HINDERED = {
    "takes_tags_off": (node(port(takes_tags_off=True)), "rx-vlan-offload", "ethtool -K eth0 rxvlan off"),
    "no_native": (node(port(native_xdp=False, native_xdp_reason="too old")), "too old", None),
    "parent_elsewhere": (node(port(), lower="gone"), "its parent cannot be seen", None),
    "three_tags": (
        node(
            port(), lower="b", more=(vlan("a", 8, "eth0", Tag(PROVIDER, 1)), vlan("b", 9, "a", Tag(PROVIDER, 2)))
        ),
        "more than two tags", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HINDERED)
def test_what_keeps_xdp_from_a_vlan_s_parent_is_said(kind):
    where, reason, remedy = HINDERED[kind]
    with pytest.raises(CompileErrors) as refused:
        compiled(service(), node=where, devices="eth0.7")
    (error,) = refused.value.errors
    assert "device eth0.7 has no native XDP" in error.message
    assert reason in error.message
    assert error.allowed.startswith(f"{remedy}; or best-effort" if remedy else "best-effort")


@pytest.mark.parametrize("kind", HINDERED)
def test_best_effort_is_at_the_vlan_itself_then(kind):
    where, reason, _ = HINDERED[kind]
    found = compiled(service(), node=where, devices="eth0.7", bpf_lb_acceleration="best-effort")
    assert found.state.load_balancer.attachments == {"eth0.7": "generic"}
    assert any(reason in warning for warning in found.warnings)
    # Above the tag there is none.
    assert ways(found)[1] == {}


@pytest.mark.parametrize("acceleration", ["testing-only", "disabled"])
def test_generic_mode_and_tc_are_at_the_vlan_itself(acceleration):
    found = compiled(service(), node=node(), devices="eth0.7", bpf_lb_acceleration=acceleration)
    assert list(found.state.load_balancer.attachments) == ["eth0.7"]
    assert ways(found)[1] == {}
    assert read_config(found.state).vlans == (acceleration != "disabled")


def test_a_node_without_vlans_does_not_pay_for_them():
    found = compiled(service(), devices="eth0")
    assert read_config(found.state).vlans == 0
    assert ways(found) == ({}, {})


def test_more_vlans_than_there_is_room_for():
    many = [vlan(f"v{number}", number, "eth0", Tag(CUSTOMER, number & 4095)) for number in range(10, 4107)]
    with pytest.raises(CompileErrors, match="4096"):
        compiled(service(), node=node(port(), more=many), devices="eth0.7")
