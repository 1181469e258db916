import errno
import ipaddress

import pytest

from datapath.compile import layouts
from datapath.kernel.errors import KernelError
from datapath.plan.operations import (
    AddNeighbour,
    DeleteEntry,
    DeleteLut,
    PrepareMaps,
    PutEntry,
    PutLut,
    RemoveNeighbour,
    SetSysctl,
    SwapLoadBalancer,
)
from datapath.state.kernel_state import Neighbour


def service(number):
    return number.to_bytes(4, "little") * 5


def put(number):
    return PutEntry(layouts.SERVICES, service(number), bytes(8))


@pytest.fixture
def installed(kernel, node, config):
    kernel.execute([PrepareMaps({layouts.SERVICES: 4}, 251), SwapLoadBalancer(config(), {"eth0": "native"})])
    return kernel


def test_operations_are_done_in_their_order(installed):
    installed.execute([put(1), DeleteEntry(layouts.SERVICES, service(1)), put(2), PutLut(1, bytes(1004)), DeleteLut(1)])
    have = installed.read()
    assert set(have.entries[layouts.SERVICES]) == {service(2)}
    assert have.luts == {}


def test_a_full_map_names_the_operation_the_map_and_its_size(installed):
    operations = [put(number) for number in range(6)]
    with pytest.raises(KernelError, match=r"map services_v1 is full \(4 entries\)") as caught:
        installed.execute(operations)
    assert caught.value.operation is operations[4]
    assert caught.value.errno == errno.E2BIG
    assert set(installed.read().entries[layouts.SERVICES]) == {service(number) for number in range(4)}


def test_nothing_behind_a_failure_is_done(installed, node):
    failing = SetSysctl("net.ipv4.conf.absent.forwarding", "1")
    with pytest.raises(KernelError, match=r"/proc/sys/net/ipv4/conf/absent/forwarding: No such file") as caught:
        installed.execute([put(1), failing, put(2)])
    assert caught.value.operation is failing
    assert set(installed.read().entries[layouts.SERVICES]) == {service(1)}


def test_a_value_that_the_sysctl_refuses(installed):
    with pytest.raises(KernelError) as caught:
        installed.execute([SetSysctl("net.ipv4.conf.eth0.forwarding", "many")])
    assert caught.value.errno == errno.EINVAL


def test_sysctls_and_neighbours(installed, node):
    name, neighbour = "net.ipv4.conf.eth0.forwarding", Neighbour("eth0", ipaddress.ip_address("10.9.0.2"))
    installed.execute([SetSysctl(name, "1"), AddNeighbour(neighbour)])
    have = installed.read()
    assert have.sysctls[name] == "1"
    assert have.neighbours == {neighbour}
    installed.execute([RemoveNeighbour(neighbour)])
    assert installed.read().neighbours == frozenset()


def test_progress_counts_operations(installed):
    seen = []
    installed.execute([put(1), put(2), DeleteEntry(layouts.SERVICES, service(1))], lambda *step: seen.append(step))
    assert seen == [(2, 3), (3, 3)]


def test_map_writes_are_counted_and_reading_is_none(installed):
    before = installed.map_writes
    installed.read()
    list(installed.flows())
    installed.counters(layouts.OUTCOMES)
    installed.execute([])
    assert installed.map_writes == before
    installed.execute([put(1), put(2), put(3)])
    assert installed.map_writes == before + 1


def test_without_maps_an_entry_has_nowhere_to_go(kernel, node):
    with pytest.raises(KernelError, match="map services_v1 is not pinned"):
        kernel.execute([put(1)])
