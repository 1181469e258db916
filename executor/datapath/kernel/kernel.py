"""`Kernel`: the kernel stage's interface to the other stages."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from datapath.compile import layouts
from datapath.compile.layouts import FlowKey, FlowValue, Traffic
from datapath.kernel import (
    abi,
    bandwidth,
    bundle,
    capture,
    clock,
    features,
    host_bbr,
    libbpf,
    load_balancer,
    neighbours,
    node,
    programs,
    read,
    sysctl,
    tc,
    trace,
)
from datapath.kernel import devices as device_facts
from datapath.kernel.counters import counters
from datapath.kernel.entries import Writer
from datapath.kernel.errors import BpfError, KernelError, RefusedError
from datapath.kernel.execute import Executor, Progress
from datapath.kernel.maps import NO_TABLES, Maps
from datapath.kernel.objects import ObjectSource
from datapath.kernel.pins import Pins, unpin
from datapath.plan.operations import Operation, PutProgram
from datapath.spec.errors import SpecErrors
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import Entries, KernelState, UserProgram
from datapath.state.model import IPAddress, Program

DEFAULT_PINS = Path("/sys/fs/bpf/datapath")


class Kernel:
    """This node's kernel, as far as the datapath is concerned, in the network namespace of the calling thread.

    Not for use from a thread that runs an event loop: netlink is synchronous here.
    """

    def __init__(self, pins: Path = DEFAULT_PINS, objects: Optional[ObjectSource] = None) -> None:
        self._pins = Pins(pins)
        self._objects = objects or ObjectSource()
        self._writer = Writer()
        self._maps = Maps(self._pins, self._objects, self._writer)

    @property
    def map_writes(self) -> int:
        """System calls by this object that wrote or deleted map entries."""
        return self._writer.writes

    def build_id(self) -> bytes:
        """16 bytes that tell versions of the load balancer's object apart."""
        return self._objects.build_id()

    def facts(self, devices: Optional[Sequence[str]], targets: Iterable[IPAddress], probe_native: bool) -> NodeFacts:
        """Facts of the node; reads only, but for what `probe_native` says.

        Args:
            devices: names to describe; those that do not exist are missing. None: all.
            targets: addresses whose next hop is asked for.
            probe_native: find out which devices have native XDP (see `kernel.devices.read`).
        """
        described = device_facts.read(devices, probe_native)
        routes = device_facts.routes()
        return NodeFacts(
            kernel=os.uname().release,
            cpus=libbpf.possible_cpus(),
            jiffies_hz=clock.jiffies_hz(),
            features=features.probe(),
            devices=described,
            default_devices=routes.default_devices,
            gateways=routes.gateways,
            next_hops=neighbours.next_hops(targets),
            sysctls=sysctl.read_all({*described, *routes.default_devices}),
            netns_cookie=host_bbr.netns_cookie(),
        )

    def read(self, expected: Mapping[int, bytes] = NO_TABLES) -> KernelState:
        """What the kernel holds of ours; tables are the very objects of `expected` where they are equal."""
        return read.read(self._pins, self._maps, lambda ids: self._maps.luts(ids, expected))

    def read_without_tables(self) -> KernelState:
        """As `read`, but for the tables of slots, which are most of what there is."""
        return read.read(self._pins, self._maps, lambda _: NO_TABLES)

    def read_table(self, lut_id: int) -> bytes:
        """A table's slots, a u32 each; none where it does not exist."""
        return self._maps.luts([lut_id]).get(lut_id, b"")

    def read_entries(self, map: str, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:  # noqa: A002
        """The entries of `keys` that `read` has; none where the map does not exist."""
        if map not in self._maps.names():
            return {}
        return read.lookup(self._maps, map, keys)

    def execute(self, operations: Sequence[Operation], on_progress: Optional[Progress] = None) -> None:
        """Do `operations` in order; raises `KernelError` at the first that fails."""
        Executor(self._pins, self._objects, self._maps).execute(operations, on_progress)

    def inspect_program(self, program: Program) -> UserProgram:
        """What a user's program is, by loading it; nothing is attached or pinned.

        Raises:
            SpecErrors: there is no such object or program, or it does not fit where it is to be attached.
            KernelError: the kernel refuses it; has the verifier's log.
        """
        try:
            return programs.inspect(self._pins, program)
        except RefusedError as e:
            raise SpecErrors([programs.refusal(program, e)]) from e
        except (OSError, ValueError) as e:
            operation, log = PutProgram(UserProgram(program, "")), e.log if isinstance(e, BpfError) else ""
            raise KernelError(operation, getattr(e, "errno", 0) or 0, getattr(e, "strerror", "") or str(e), log) from e

    def flows(self) -> Iterator[tuple[FlowKey, FlowValue]]:
        """All flows, in no order; those that begin or end meanwhile may be there or not."""
        present = self._maps.names()
        for name in (layouts.FLOWS_TCP, layouts.FLOWS_ANY):
            if name in present:
                for key, value in self._maps.entries(name):
                    yield FlowKey.from_buffer_copy(key), FlowValue.from_buffer_copy(value)

    def counters(self, map_name: str) -> Mapping[int, tuple[int, int]]:
        """Key -> (packets, bytes) summed over CPUs, without the keys that are zero; empty where there is no map."""
        if map_name in self._maps.names():
            return counters(self._maps.entries(map_name))
        owner = bandwidth.BUNDLE if map_name == layouts.BANDWIDTH_OUTCOMES else node.BUNDLE
        return counters(bundle.entries(self._pins, owner, map_name))

    def traffic(self) -> Mapping[bytes, Traffic]:
        """RateKey of an endpoint -> what of its packets passed and what was dropped."""
        return bandwidth.traffic(self._pins)

    def bandwidth_entries(self) -> Mapping[str, Entries]:
        """Contents of the bandwidth manager's maps that desired state decides."""
        return bandwidth.entries(self._pins)

    def refresh_neighbours(self) -> None:
        """Have next hops resolved again, where the kernel does not do so by itself."""
        neighbours.refresh()

    def test_run(self, packet: bytes, device: str) -> tuple[int, bytes]:
        """Push a frame, as received on `device`, through the load balancer's program: (XDP verdict, frame).

        The program counts it and may begin a flow, as for a real packet.

        Raises:
            KernelError: no program is loaded, there is no such device, or this kernel has no `test_run_device`.
        """
        link = device_facts.links().get(device)
        fd = libbpf.pinned(self._pins.load_balancer)
        if link is None or fd is None:
            raise KernelError(None, 0, f"there is no device {device}" if fd else self._nothing_to_run())
        with libbpf.closing(fd):
            if not features.has("test_run_device"):
                # Without a device the program would ask for routes as the loopback device's, which has none.
                why = "this kernel runs no frame as received on a device (5.15 and newer do)"
                raise KernelError(None, errno.EOPNOTSUPP, why)
            verdict, frame, _ = libbpf.run_program(fd, packet, abi.XdpMd(ingress_ifindex=link.index))
        return verdict, frame

    def _nothing_to_run(self) -> str:
        """Why no frame can be pushed through the load balancer."""
        if self._pins.tc_load_balancer.exists():
            return "the load balancer runs at tc (bpf-lb-acceleration: disabled); frames are run through XDP only"
        return "no load balancer is loaded"

    def loaded(self) -> bool:
        """Whether the load balancer's program is pinned, and so loaded."""
        return self._pins.load_balancer.exists() or self._pins.tc_load_balancer.exists()

    @contextmanager
    def second_instance(self) -> Iterator[trace.Instance]:
        """A second instance of the loaded program, to run packets through without leaving a trace.

        Raises:
            KernelError: no program is loaded, or one of another version.
        """
        fd = libbpf.pinned(self._pins.load_balancer)
        hook = trace.XDP
        if fd is None:
            fd, hook = libbpf.pinned(self._pins.tc_load_balancer), trace.TC
        if fd is None:
            raise KernelError(None, 0, "no load balancer is loaded")
        with libbpf.closing(fd):
            try:
                with trace.instance(fd, self._objects.read(hook.object), hook) as made:
                    yield made
            except BpfError as e:
                raise KernelError(None, e.errno or 0, e.strerror or str(e), e.log) from e

    def attached_to(self, program: int) -> dict[int, str]:
        """Where the load balancer's program with that id is attached: device index -> XDP mode, or `tc`."""
        found = {link.index: link.xdp_mode for link in device_facts.links().values() if link.xdp_program == program}
        at_tc = tc.attached(self._pins, load_balancer.TC_PROGRAM)
        return {**found, **{each.index: "tc" for each in at_tc if each.program == program}}

    def begin_capture(self, wanted: bytes) -> set[int]:
        """Have the load balancer copy frames to map `capture_events` (see `kernel.capture`); where, by device index.

        Raises:
            KernelError: it does not run at XDP, or the kernel refuses.
        """
        try:
            return capture.begin(self._pins, self._objects, self._maps, wanted)
        except RefusedError as e:
            raise KernelError(None, 0, str(e)) from e
        except BpfError as e:
            raise KernelError(None, e.errno or 0, e.strerror or str(e), e.log) from e

    def end_capture(self) -> None:
        """Put the load balancer back as it was; raises KernelError."""
        try:
            capture.end(self._pins)
        except BpfError as e:
            raise KernelError(None, e.errno or 0, e.strerror or str(e)) from e

    def reset(self) -> None:
        """Remove everything of ours: attachments, programs, maps, neighbours, pins.

        Sysctls are left as they are, and qdiscs, whose place defaults take that follow a sysctl.
        """
        load_balancer.remove(self._pins, self._maps)
        bundle.remove(self._pins, node.BUNDLE)
        bundle.remove(self._pins, bandwidth.BUNDLE)
        host_bbr.remove(self._pins)
        for name in programs.read(self._pins):
            programs.remove(self._pins, name)
        neighbours.remove(list(neighbours.read()))
        for pin in self._pins.links.glob("*"):
            unpin(pin)
        self._pins.remove_empty()
