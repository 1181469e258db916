import asyncio
import ipaddress
import struct
import time

import pytest

from datapath.compile import layouts
from datapath.kernel import Kernel, KernelError, ObjectSource, features
from datapath.plan.operations import AddNeighbour, PrepareMaps, PutEntry, PutLut, PutProgram, SwapLoadBalancer
from datapath.state.kernel_state import KernelState, Neighbour
from datapath.state.model import Hook
from netns.topology import slowness


def installed(kernel, config, sizes):
    kernel.execute([PrepareMaps(sizes, 251), SwapLoadBalancer(config(), {"eth0": "native"})])


def test_fresh_node(kernel, node, pins):
    have = kernel.read()
    assert have == KernelState(sysctls=have.sysctls, qdiscs=have.qdiscs)
    assert {qdisc.owner for qdisc in have.qdiscs.values()} == {"kernel"}
    assert kernel.read_entries(layouts.SERVICES, [bytes(20)]) == {}
    assert kernel.counters(layouts.OUTCOMES) == {}
    assert list(kernel.flows()) == []
    with pytest.raises(KernelError, match="no load balancer is loaded"):
        kernel.test_run(bytes(60), "eth0")
    kernel.reset()
    assert not pins.exists()


def test_entries_are_those_that_a_whole_read_has(kernel, node, config):
    """In an array every key exists; an id whose value is zero is free."""
    installed(kernel, config, {})
    ids = [struct.pack("=I", number) for number in (1, 2)]
    kernel.execute([PutEntry(layouts.BACKENDS, ids[1], b"b" * 20)])
    assert kernel.read_entries(layouts.BACKENDS, ids) == kernel.read().entries[layouts.BACKENDS] == {ids[1]: b"b" * 20}


def test_facts(kernel, node):
    facts = kernel.facts(["eth0"], [ipaddress.ip_address("10.9.0.9")], probe_native=True)
    assert set(facts.devices) == {"eth0"}
    assert facts.next_hops[ipaddress.ip_address("10.9.0.9")].device == "eth0"
    assert facts.sysctls["net.ipv4.conf.eth0.forwarding"] == "0"
    assert facts.features["bpf"] is True
    assert facts.cpus >= 1


def test_reset_leaves_nothing(kernel, node, pins, config, user):
    def traces():
        return [node.run(command) for command in ("ip link", "tc qdisc", "ip neigh")]

    before = traces()
    installed(kernel, config, {})
    wanted = kernel.inspect_program(
        user("tc_pass", Hook.TC, device="eth0", direction="ingress", pin=str(pins / "mine"))
    )
    kernel.execute([AddNeighbour(Neighbour("eth0", ipaddress.ip_address("10.9.0.77"))), PutProgram(wanted)])
    assert traces() != before
    kernel.reset()
    assert traces() == before
    assert not pins.exists()


def test_flows_and_counters(pins, node):
    """With the datapath's own object: the layouts are the kernel's."""
    kernel = Kernel(pins)
    try:
        kernel.build_id()
    except FileNotFoundError:
        pytest.skip("the datapath's objects are not built (make bpf)")
    config = layouts.Config(maglev_table_size=251)
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(bytes(config), {"eth0": "native"})])
    key, value = layouts.FlowKey(protocol=6, source_port=4711), layouts.FlowValue(backend_id=3)
    kernel._maps.put(layouts.FLOWS_TCP, [(bytes(key), bytes(value))])
    ((read_key, read_value),) = kernel.flows()
    assert (read_key.source_port, read_value.backend_id) == (4711, 3)
    if not features.has("test_run_device"):
        with pytest.raises(KernelError, match="as received on a device"):
            kernel.test_run(b"\xff" * 64, "eth0")
        return
    kernel.test_run(b"\xff" * 64, "eth0")
    assert sum(packets for packets, _ in kernel.counters(layouts.OUTCOMES).values()) >= 1


def test_twenty_thousand_backends_within_seconds(kernel, node, config):
    installed(kernel, config, {layouts.BACKENDS: 30_000, layouts.LUTS: 1100, layouts.SERVICES: 1100})
    backends = [
        PutEntry(layouts.BACKENDS, struct.pack("=I", n), struct.pack("=5I", n, 1, 1, 1, 1)) for n in range(1, 20_001)
    ]
    tables = [PutLut(number, bytes(1004)) for number in range(1, 1001)]
    services = [
        PutEntry(layouts.SERVICES, struct.pack("=5I", n, 0, 0, 0, 0), struct.pack("=2I", n, 0)) for n in range(1, 1001)
    ]
    started, writes = time.monotonic(), kernel.map_writes
    kernel.execute([*backends, *tables, *services])
    have = kernel.read()
    assert time.monotonic() - started < 5 * slowness()
    assert kernel.map_writes - writes < (1200 if features.has("map_in_map_batch") else 2200)
    assert len(have.entries[layouts.BACKENDS]) == 20_000
    assert len(have.luts) == len(have.entries[layouts.SERVICES]) == 1000


def test_from_a_thread_beside_an_event_loop(kernel, node):
    async def main():
        return await asyncio.to_thread(in_namespace)

    def in_namespace():
        with node:
            return kernel.read()

    assert asyncio.run(main()) == kernel.read()


def test_build_id_tells_objects_apart(tmp_path):
    (tmp_path / "xdp_lb.bpf.o").write_bytes(b"one")
    one = Kernel(tmp_path, ObjectSource(tmp_path)).build_id()
    (tmp_path / "xdp_lb.bpf.o").write_bytes(b"two")
    assert len(one) == 16
    assert Kernel(tmp_path, ObjectSource(tmp_path)).build_id() != one
