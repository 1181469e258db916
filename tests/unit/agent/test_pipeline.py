"""Which devices are tried out, and when."""

from dataclasses import replace

import pytest

from datapath.agent.pipeline import gather_facts
from datapath.sources.merge import merge
from unit.state.builders import desired, device, facts, service


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
    return gather_facts(kernel, merge(desired(service(), **config), {}), attach=attach)


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
