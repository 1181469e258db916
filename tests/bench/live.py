"""Frames that travel: made by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES (Linux 5.18), dropped by a sink.

    peer                              forwarder
    in0-peer, out0-peer ---- veth ---- in0, out0
    generator and sink                 the program under test, or the kernel's own forwarding

Both ends are programs of programs/wire.bpf.c. A frame leaves by XDP_TX from the peer's device, as if it had come by
that one, and what comes back meets the sink on either of the peer's devices.
"""

import ctypes
import os
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import programs
from bench.node import MACS
from bench.wrapper import Frames, Traffic
from datapath.kernel import abi, libbpf
from datapath.kernel.errors import BpfError
from netns.topology import NetNS

LIVE_FRAMES = 1 << 1
"""BPF_F_TEST_XDP_LIVE_FRAMES."""
BATCH = 64
"""Frames that are handed over at once: as many as a NAPI poll takes."""
WINDOW = 192
"""Frames on their way at most: a veth's ring has 256 places."""
NO_WINDOW = 1 << 62
PATIENCE = 0.5
"""Seconds after which no more frames are sent for a sample."""
SETTLED = 0.05
"""Seconds that the last frames of a sample have to arrive in."""


class Wire(ctypes.Structure):
    """`struct wire` of wire.bpf.c."""

    _fields_ = (
        ("counted", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("_pad0", ctypes.c_uint64 * 6),
        ("arrived", ctypes.c_uint64),
        ("_pad1", ctypes.c_uint64 * 7),
        ("sent", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("window", ctypes.c_uint64),
        ("_pad2", ctypes.c_uint64 * 5),
    )


class MissingError(Exception):
    """This machine cannot show something; why."""


@dataclass(frozen=True)
class Forwarder:
    """A namespace that sends on what comes by its devices, and the one at their other ends."""

    name: str
    namespace: NetNS
    peer: NetNS

    def requests(self, device, frame, **flows):
        """`Traffic` that this device receives."""
        with self.peer:
            return Traffic(frame, socket.if_nametoindex(f"{device}-peer"), **flows)


@dataclass(frozen=True)
class Sample:
    """What became of the frames of one sample."""

    sent: int
    counted: int
    """At the sink."""
    bytes: int
    turns: int
    """How often the generator was asked for a frame; while WINDOW frames are on their way it sends none."""
    core: float
    """Seconds of the core that the forwarder runs on."""
    wall: float

    @property
    def pps(self):
        """Frames a second that a whole core forwards."""
        return self.counted / self.core


class Generator:
    """Generator and sink. Use as a context manager."""

    def __init__(self):
        self._object = programs.own("wire")
        self._object.load()
        self._program = self._object.program_fd("generator")
        self._sink = self._object.program_fd("sink")
        self._memory = self._object.map_fd(".data.wire")
        assert libbpf.map_info(self._memory).value_size == ctypes.sizeof(Wire)
        self._frames = Frames(self._object)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._object.close()

    @contextmanager
    def sink(self, forwarder):
        """Count and drop what the forwarder sends."""
        with ExitStack() as stack:
            with forwarder.peer:
                for device in MACS:
                    stack.enter_context(attached(self._sink, f"{device}-peer"))
            yield

    def send(self, forwarder, traffic, frames, window=NO_WINDOW, clock=time.thread_time):
        """`Sample` of (at least) so many frames; `clock()` tells the seconds of the forwarder's core."""
        self._frames.prepare(traffic, frames)
        libbpf.map_update(self._memory, bytes(4), bytes(Wire(window=window)))
        calls = 0
        with forwarder.peer:
            core, begin = clock(), time.perf_counter()
            while not calls or (self._read().sent < frames and time.perf_counter() - begin < PATIENCE):
                self._run(traffic, frames)
                calls += 1
            wall = time.perf_counter() - begin
        found = self._settled()
        return Sample(found.sent, found.counted, found.bytes, calls * frames, clock() - core, wall)

    def _read(self):
        return Wire.from_buffer_copy(libbpf.map_lookup(self._memory, bytes(4), ctypes.sizeof(Wire)))

    def _settled(self):
        deadline = time.monotonic() + SETTLED
        while True:
            found = self._read()
            if found.counted >= found.sent or time.monotonic() > deadline:
                return found
            time.sleep(0.0005)

    def _run(self, traffic, repeat):
        context = abi.XdpMd(ingress_ifindex=traffic.device, data_end=len(traffic.frame))
        options = abi.TestRunOptions(
            sz=ctypes.sizeof(abi.TestRunOptions),
            data_in=ctypes.cast(ctypes.c_char_p(traffic.frame), ctypes.c_void_p),
            data_size_in=len(traffic.frame),
            ctx_in=ctypes.addressof(context),
            ctx_size_in=ctypes.sizeof(context),
            repeat=repeat,
            flags=LIVE_FRAMES,
            batch_size=BATCH,
        )
        result = libbpf.library().bpf_prog_test_run_opts(self._program, ctypes.byref(options))
        libbpf.check(result, "sending live frames")


@contextmanager
def attached(program, device):
    """An XDP program on a device of this thread's namespace, in native mode."""
    index = socket.if_nametoindex(device)
    with libbpf.closing(libbpf.link_create(program, index, abi.AttachType.XDP, abi.XDP_FLAGS_DRV_MODE)):
        yield


def require(generator, forwarder):
    """MissingError where this kernel cannot send live frames."""
    try:
        generator.send(forwarder, forwarder.requests("out0", bytes(64)), 1)
    except BpfError as e:
        raise MissingError(f"live frames (Linux 5.18): {os.strerror(e.errno)}") from e


def napi_threads():
    """Ids of kernel threads that poll devices."""
    listed = subprocess.run(("ps", "-e", "-o", "pid=,comm="), check=True, capture_output=True, text=True).stdout
    rows = (line.split(maxsplit=1) for line in listed.splitlines())
    return {int(number) for number, name in rows if name.startswith("napi/")}


def thread_seconds(number):
    """CPU time of any thread."""
    return int(Path(f"/proc/{number}/schedstat").read_text().split()[0]) / 1e9
