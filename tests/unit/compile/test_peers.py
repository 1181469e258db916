import ipaddress

import pytest

from datapath.compile import CompileErrors
from datapath.compile.config import read_config
from datapath.compile.layouts import PEERS, unpack_address
from datapath.compile.peers import MOST
from datapath.state.facts import NextHop
from datapath.state.kernel_state import Neighbour
from unit.state.builders import compiled, device, facts, service

OWN4, OWN6 = "10.0.0.2", "2001:db8::2"
"""Of the node that `facts` makes."""


def with_peers(*addresses, **more):
    return compiled(service(), datapath_lb_peers=",".join(addresses), **more)


def ring(found):
    """Address -> the next one."""
    return {
        str(unpack_address(one)): str(unpack_address(next_one)) for one, next_one in found.state.entries[PEERS].items()
    }


def test_alone_unless_told_otherwise():
    found = compiled(service())
    assert (ring(found), read_config(found.state).peers) == ({}, 0)


def test_a_ring_for_each_family_in_the_order_of_addresses():
    """By number, not by text; in whatever order they are listed."""
    found = with_peers("10.0.0.10", OWN4, "2001:db8::10", "10.0.0.9", OWN6, "2001:db8::9")
    assert ring(found) == {
        OWN4: "10.0.0.9",
        "10.0.0.9": "10.0.0.10",
        "10.0.0.10": OWN4,
        OWN6: "2001:db8::9",
        "2001:db8::9": "2001:db8::10",
        "2001:db8::10": OWN6,
    }
    assert read_config(found.state).peers == 1
    assert ring(with_peers("2001:db8::9", "10.0.0.9", OWN6, OWN4, "10.0.0.10", "2001:db8::10")) == ring(found)


def test_who_is_alone_in_a_family_has_nobody():
    found = with_peers(OWN4)
    assert (ring(found), read_config(found.state).peers) == ({}, 0)
    assert set(ring(with_peers(OWN4, OWN6, "2001:db8::9"))) == {OWN6, "2001:db8::9"}


def test_without_snat_nobody_needs_another():
    found = with_peers(OWN4, "10.0.0.9", bpf_lb_mode="dsr")
    assert (ring(found), read_config(found.state).peers) == ({}, 0)
    # Not even itself in the list.
    assert ring(with_peers("10.0.0.8", "10.0.0.9", bpf_lb_mode="dsr")) == {}
    assert len(ring(with_peers(OWN4, "10.0.0.9", bpf_lb_mode="hybrid"))) == 2


def test_more_of_them_change_the_map_alone():
    two, three = with_peers(OWN4, "10.0.0.9"), with_peers(OWN4, "10.0.0.9", "10.0.0.10")
    assert two.state.load_balancer == three.state.load_balancer
    assert two.state.map_sizes == three.state.map_sizes


def test_a_list_without_the_node_itself_is_refused():
    with pytest.raises(CompileErrors) as refused:
        with_peers("10.0.0.9", "10.0.0.10")
    (error,) = refused.value.errors
    assert error.path == "options.values.lb_peers"
    assert f"carry {OWN4}, which is not among 10.0.0.9, 10.0.0.10" in error.message
    assert f"a list that has {OWN4}, or none of IPv4" in error.allowed


def test_the_address_that_requests_carry_counts():
    """Not just any of the node's."""
    with pytest.raises(CompileErrors, match=f"carry {OWN4}, which is not among 10.0.0.9, 10.9.0.2"):
        with_peers("10.0.0.9", "10.9.0.2")
    assert "10.9.0.2" in ring(with_peers("10.0.0.9", "10.9.0.2", direct_routing_device="eth1"))


def test_of_a_family_without_services_anything_goes():
    """The node chooses no address of it."""
    assert len(ring(with_peers(OWN4, "10.0.0.9", "2001:db8::9", "2001:db8::10"))) == 4


def test_more_than_there_is_room_for():
    many = [str(ipaddress.ip_address(OWN4) + number) for number in range(MOST + 1)]
    with pytest.raises(CompileErrors, match=f"room for {MOST} load balancers"):
        with_peers(*many)
    assert len(ring(with_peers(*many[:-1]))) == MOST


ETH0, ETH1 = device("eth0", "10.0.0.2/24"), device("eth1", "10.9.0.2/24")


def routed():
    """A node between two networks; of the load balancers in the second it sees 10.9.0.7 alone."""
    gateway, other = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.9.0.7")
    backends = {ipaddress.ip_address(f"10.0.1.{number}"): NextHop("eth0", gateway) for number in (1, 2, 3)}
    return facts(ETH0, ETH1, gateways=(), next_hops={**backends, other: NextHop("eth1", other)})


def test_the_way_to_each_is_kept_resolved_and_attached_to():
    found = with_peers(OWN4, "10.9.0.7", node=routed())
    assert Neighbour("eth1", ipaddress.ip_address("10.9.0.7")) in found.state.neighbours
    # What others hand on comes in there.
    assert set(found.state.load_balancer.attachments) == {"eth0", "eth1"}
    assert set(compiled(service(), node=routed()).state.load_balancer.attachments) == {"eth0"}


def test_who_cannot_be_reached_is_told_of_but_not_the_node_itself():
    found = with_peers(OWN4, "10.9.0.2", "10.9.0.7", "10.9.0.8", node=routed())
    told = [warning for warning in found.warnings if "load balancer" in warning]
    assert told == ["load balancer 10.9.0.8 (datapath-lb-peers) cannot be reached: there is no route to it"]
