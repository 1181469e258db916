"""The kernel's tables, decoded."""

import ipaddress
import struct

from datapath.agent import tables
from datapath.compile import layouts
from datapath.state.kernel_state import KernelState
from datapath.state.model import BackendState, Frontend, Protocol

V4, V6 = ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")


def address(value):
    return layouts.Address(*layouts.pack_address(value))


def test_frontends():
    key = layouts.ServiceKey(address=address(V6), port=443, protocol=6)
    value = layouts.ServiceValue(lut_id=7, backend_count=3, algorithm=2)
    state = KernelState(entries={layouts.SERVICES: {bytes(key): bytes(value)}})
    frontend = Frontend(V6, 443, Protocol.TCP)
    assert tables.frontends(state) == {frontend: tables.FrontendRow(frontend, 7, 3, 2)}


def test_backends_leave_out_free_ids():
    value = layouts.BackendValue(address=address(V4), port=8080, protocol=17, state=2, lut_id=5)
    entries = {struct.pack("=I", 9): bytes(value), struct.pack("=I", 10): bytes(len(bytes(value)))}
    (row,) = tables.backends(KernelState(entries={layouts.BACKENDS: entries})).values()
    assert row == tables.BackendRow(9, V4, 8080, Protocol.UDP, BackendState.QUARANTINED, 5)
    assert row.endpoint == "192.0.2.1:8080"


def test_shares():
    assert tables.shares(struct.pack("=5I", 1, 2, 1, 1, 9)) == {1: 3, 2: 1, 9: 1}
    assert tables.shares(b"") == {}


def test_only_the_request_direction_of_flows():
    value = layouts.FlowValue(
        new_source=address(V4), new_source_port=1024, new_destination=address(V4), new_destination_port=80, lut_id=1
    )
    value.last_seen = tables.jiffies(250)
    keys = [
        layouts.FlowKey(source=address(V6), source_port=5, destination=address(V6), protocol=6, direction=direction)
        for direction in (0, 1)
    ]
    (row,) = tables.requests(((key, value) for key in keys), 250)
    assert (row.client, row.snat, row.backend) == ("[2001:db8::1]:5", "192.0.2.1:1024", "192.0.2.1:80")
    assert row.idle < 1


def test_idle_time_over_the_counters_end():
    assert tables.idle_seconds(250, 0, 250) == 1.0
    assert tables.idle_seconds(100, 0xFFFFFFFF - 149, 250) == 1.0
    # A stamp that is newer than our reading of the clock.
    assert tables.idle_seconds(100, 101, 250) == 0.0


def test_jiffies_are_the_kernels():
    """/proc/timer_list shows the kernel's own counter."""
    from pathlib import Path

    from datapath.kernel.clock import jiffies_hz

    lines = Path("/proc/timer_list").read_text().splitlines()
    kernel = next(int(line.split(":")[1]) for line in lines if line.strip().startswith("jiffies:"))
    ours = tables.jiffies(jiffies_hz())
    two_seconds = 2 * jiffies_hz()
    assert (ours - kernel + two_seconds) & 0xFFFFFFFF < 2 * two_seconds
