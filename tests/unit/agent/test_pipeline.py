"""Which devices are tried out, and when; what a change of one service's backends reaches."""

import ipaddress
from dataclasses import replace

import pytest

from datapath.agent.pipeline import Ways, gather_facts, prepare_services
from datapath.compile.layouts import BACKENDS
from datapath.plan.operations import AddNeighbour, DeleteEntry, PutEntry, PutLut, RemoveNeighbour
from datapath.sources.merge import merge
from datapath.state.facts import NextHop
from unit.state.builders import compiled, desired, device, facts, service


class Kernel:
    """Tells about three devices; `tried` are those that it was allowed to attach to."""

    def __init__(self, *devices):
        self.node, self.tried = facts(*devices), []

    def facts(self, names, targets, probe_native):
        if names is None:
            return self.node
        self.tried += names
        return replace(self.node, devices={name: replace(self.node.devices[name], native_xdp=True) for name in names})


def gather(kernel, attach, **config):
    return gather_facts(kernel, merge(desired(service(), **config)), attach=attach)


def node(**changes):
    refused = replace(device("eth0", "10.0.0.2/24", native=False), **changes)
    return Kernel(refused, device("eth1", "10.9.0.2/24"), device("lo", "127.0.0.1/8", native=False))


def test_the_chosen_devices_are_tried_and_the_answer_counts():
    kernel = node()
    assert gather(kernel, attach=True).devices["eth0"].native_xdp is True
    assert kernel.tried == ["eth0"]


def test_a_dry_run_tries_nothing():
    kernel = node()
    assert gather(kernel, attach=False).devices["eth0"].native_xdp is False
    assert kernel.tried == []


@pytest.mark.parametrize("mode", ["native", "generic", "offload"])
def test_a_device_that_carries_a_program_is_left_alone(mode):
    kernel = node(xdp_mode=mode)
    gather(kernel, attach=True)
    assert kernel.tried == []


def test_nothing_is_tried_where_no_device_runs_natively():
    kernel = node()
    gather(kernel, attach=True, bpf_lb_acceleration="testing-only")
    assert kernel.tried == []


def test_the_ports_of_a_bond_are_tried_and_not_the_bond():
    bond = replace(device("bond0", "10.0.0.2/24"), kind="bond", lower=("eth1", "eth2"))
    kernel = Kernel(bond, device("eth1"), device("eth2"))
    gather(kernel, attach=True, devices="bond0")
    assert kernel.tried == ["eth1", "eth2"]


# --- one service with other backends ---

IP = ipaddress.ip_address


class Entries:
    """A kernel that holds what was compiled."""

    def __init__(self, state):
        self.state = state

    def read_entries(self, name, keys):
        return {key: self.state.entries[name][key] for key in keys if key in self.state.entries[name]}


def on_link(address):
    return NextHop("eth0", address)


def changed(before, after, hop=on_link, others=()):
    """What the change of service web's backends takes; numbers are those of 10.0.1.N."""

    def services(numbers):
        return [service(backends=[f"10.0.1.{number}:8080" for number in numbers]), *others]

    hops = {IP(f"10.0.1.{number}"): on_link(IP(f"10.0.1.{number}")) for number in (*before, *after)}
    old = compiled(*services(before), node=facts(next_hops=hops))
    known = {each.address: hops[each.address] for web in old.services.values() for each in web.backends}
    (whole, *_) = merge(desired(*services(after))).services

    def look(addresses):
        return {each: hop(each) for each in addresses if hop(each)}

    return prepare_services(Entries(old.state), old, [whole], Ways(known, facts().gateways), look)


def test_only_the_service_and_its_neighbours_change():
    part = changed([1, 2], [2, 3])
    kinds = [type(each) for each in part.operations]
    assert kinds == [AddNeighbour, PutEntry, PutLut, DeleteEntry, RemoveNeighbour]
    assert part.operations[0].neighbour.address == IP("10.0.1.3")
    assert part.operations[-1].neighbour.address == IP("10.0.1.1")
    assert {each.map for each in part.operations if isinstance(each, (PutEntry, DeleteEntry))} == {BACKENDS}
    assert part.ways.next_hops.keys() == {IP("10.0.1.2"), IP("10.0.1.3")}
    assert part.compiled.state.neighbours == part.ways.neighbours()


def test_a_neighbour_that_another_service_needs_stays():
    other = service("other", "192.0.2.11:80/TCP", backends=["10.0.1.1:9000"])
    part = changed([1, 2], [2], others=[other])
    assert not any(isinstance(each, RemoveNeighbour) for each in part.operations)
    assert IP("10.0.1.1") in part.ways.next_hops


@pytest.mark.parametrize("hop", [None, NextHop("eth7", IP("10.7.0.1")), NextHop("lo", IP("10.0.1.3"))])
def test_what_reaches_further_is_left_to_a_whole_plan(hop):
    assert changed([1, 2], [1, 2, 3], hop=lambda _: hop) is None


def test_the_first_backend_is_left_to_a_whole_plan():
    """Nothing tells which devices are in use."""
    assert changed([], [1]) is None


@pytest.mark.parametrize(("room", "whole"), [(16, False), (3, True)], ids=["room", "full"])
def test_ids_that_pass_to_another_service_are_left_to_a_whole_plan(room, whole):
    """In a full map a service gets the id of a backend that another one has no more."""

    def services(*counts):
        return [
            service(
                f"s{index}", f"192.0.2.{index}:80/TCP", backends=[f"10.0.1.{number}:{index}" for number in range(count)]
            )
            for index, count in enumerate(counts, 1)
        ]

    hops = {IP(f"10.0.1.{number}"): on_link(IP(f"10.0.1.{number}")) for number in range(2)}
    old = compiled(*services(2, 1), node=facts(next_hops=hops), bpf_lb_service_backend_map_max=room)
    new = merge(desired(*services(1, 2))).services
    part = prepare_services(Entries(old.state), old, new, Ways(hops, facts().gateways), lambda _: {})
    assert (part is None) is whole
