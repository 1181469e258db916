"""Runs a program again and again on one frame, or on the frames of many flows (programs/wrapper.bpf.c)."""

import ctypes
import enum
import struct
import time
from dataclasses import dataclass

from bench import programs
from datapath.kernel import abi, libbpf

FRAME_SIZE = 128
_SOURCE, _PORT, _CHECKSUM = {4: 26, 6: 34}, {4: 34, 6: 54}, {4: 24, 6: 0}
"""IP version -> offsets of the last word of the source address, of the source port, and of the header's checksum."""


class Order(enum.IntEnum):
    """How flows follow each other."""

    SEQUENTIAL = 0
    MIXED = 1
    FRESH = 2
    """Never the same twice."""


class Restore(ctypes.Structure):
    """`struct restore` of programs/restore.h."""

    _fields_ = (
        ("packets", ctypes.c_uint64),
        ("frame", ctypes.c_uint8 * FRAME_SIZE),
        ("length", ctypes.c_uint32),
        ("mask", ctypes.c_uint32),
        ("order", ctypes.c_uint32),
        ("random", ctypes.c_uint32),
        ("source", ctypes.c_uint32),
        ("port", ctypes.c_uint32),
        ("checksum", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class Traffic:
    """A frame, and how its source varies. Its length is a multiple of 8 (what is restored) up to 128."""

    frame: bytes
    device: int
    """Index of the receiving device."""
    flows: int = 1
    """A power of two; the source address and port of the frame are the first's."""
    order: Order = Order.SEQUENTIAL

    @property
    def version(self):
        return 6 if self.frame[12:14] == b"\x86\xdd" else 4


class Frames:
    """The frames that the programs of an object make (programs/restore.h)."""

    def __init__(self, obj):
        self._memory = obj.map_fd(".bss")
        assert libbpf.map_info(self._memory).value_size == ctypes.sizeof(Restore)
        self._fresh = 0
        self._random = 0x2545F491

    def prepare(self, traffic, repeat):
        """Begin with the first of `repeat` frames."""
        assert len(traffic.frame) <= FRAME_SIZE
        assert len(traffic.frame) % 8 == 0
        assert traffic.flows & (traffic.flows - 1) == 0
        fresh = traffic.order is Order.FRESH
        restore = Restore(
            length=len(traffic.frame),
            mask=0xFFFFFFFF if fresh else traffic.flows - 1,
            order=traffic.order,
            random=self._random,
            source=_SOURCE[traffic.version],
            port=_PORT[traffic.version],
            checksum=_CHECKSUM[traffic.version],
            packets=self._fresh if fresh else 0,
        )
        if fresh:
            self._fresh += repeat
        # Another sequence for every sample; never 0, where the generator would stay.
        self._random = self._random * 1664525 + 1013904223 & 0xFFFFFFFF or 1
        ctypes.memmove(restore.frame, traffic.frame, len(traffic.frame))
        libbpf.map_update(self._memory, bytes(4), bytes(restore))


class Wrapper:
    """Use as a context manager."""

    def __init__(self):
        self._object = programs.own("wrapper")
        self._object.load()
        self._program = self._object.program_fd("wrapper")
        self._jumps = self._object.map_fd("measured")
        self._frames = Frames(self._object)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._object.close()

    def choose(self, program):
        """The program to run from now on, by file descriptor."""
        libbpf.map_update(self._jumps, bytes(4), struct.pack("=I", program))

    def run(self, traffic, repeat):
        """(verdict of the last run, frame after it, nanoseconds of a run); the wrapper's share is included.

        Time is this thread's on a CPU: being preempted does not count, interrupts and time that a hypervisor takes do.
        """
        self._frames.prepare(traffic, repeat)
        context = abi.XdpMd(ingress_ifindex=traffic.device)
        before = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID)
        verdict, frame, _ = libbpf.run_program(self._program, traffic.frame, context, repeat)
        spent = time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID) - before
        return verdict, frame, spent / repeat
