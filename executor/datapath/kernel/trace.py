"""The loaded program, run on one packet without leaving a trace.

A second instance of the program does it: the same instructions and configuration, on the very tables that the loaded
one uses, but with flow maps and counters of its own, which end with it. It is handed those live flow entries that the
packet meets.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Callable, Optional

from datapath.compile.layouts import (
    ADDRESSES,
    BACKENDS,
    CHOICES_ANY,
    CHOICES_TCP,
    FLOWS_ANY,
    FLOWS_TCP,
    GENERATION,
    HISTORIES,
    LOOKUPS,
    LUTS,
    NEXTHOPS,
    OUTCOMES,
    PEERS,
    SERVICES,
    VLANS_IN,
    VLANS_OUT,
    FlowKey,
)
from datapath.kernel import abi, libbpf
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.counters import counters
from datapath.kernel.entries import read_entries
from datapath.kernel.errors import BpfError, KernelError
from datapath.kernel.load_balancer import CONFIG, PROGRAM, TC_PROGRAM, config_of, set_config
from datapath.kernel.maps import map_names
from datapath.kernel.objects import LOAD_BALANCER, LOAD_BALANCER_TC

SHARED = (SERVICES, BACKENDS, LUTS, HISTORIES, ADDRESSES, GENERATION, VLANS_OUT, VLANS_IN, PEERS)
"""Tables, which the program only reads: used in place."""
FLOWS = (FLOWS_TCP, FLOWS_ANY)
CHOICES = (CHOICES_TCP, CHOICES_ANY)
RECORDS = (*FLOWS, *CHOICES)
"""Private, with copies of the entries concerned. All other maps are private and empty."""


@dataclass(frozen=True)
class Hook:
    """Where the program runs, and what the kernel wants to run it on a frame."""

    object: str
    function: str
    context: Callable[[int], ctypes.Structure]
    """For a frame that the device of that index received."""
    verdicts: Mapping[int, str]
    """Names of what the program may return."""


XDP = Hook(
    LOAD_BALANCER,
    PROGRAM,
    lambda index: abi.XdpMd(ingress_ifindex=index),
    {0: "XDP_ABORTED", 1: "XDP_DROP", 2: "XDP_PASS", 3: "XDP_TX", 4: "XDP_REDIRECT"},
)
TC = Hook(
    LOAD_BALANCER_TC,
    TC_PROGRAM,
    lambda index: abi.SkBuff(ifindex=index),
    {0xFFFFFFFF: "TC_ACT_UNSPEC", 2: "TC_ACT_SHOT", 7: "TC_ACT_REDIRECT"},
)

_ROUNDS = 256
"""Runs before giving up: every search for a source port meets at most 32 entries that have to be copied first."""
_FLOWS_PER_CPU = 256
"""An LRU map hands out room in lots of 128 a CPU, and evicts where there are not enough of them."""
_TCP = 6
_OTHER_VERSION = (
    "the load balancer that is loaded is of another version than this executor: its own `datapath trace` can run it,"
    " or restart datapathd, which replaces it"
)


@dataclass(frozen=True)
class Run:
    """What the program did to a frame."""

    action: str
    """What the program returned: `XDP_REDIRECT`, `TC_ACT_REDIRECT`..."""
    outcome: int
    """Index of the outcome that it counted."""
    frame: bytes
    """As it left the program."""
    before: Mapping[bytes, bytes]
    """Live flow entries that it met: FlowKey -> FlowValue."""
    after: Mapping[bytes, bytes]
    """The same entries afterwards, and those that it made."""
    choices: Mapping[str, tuple[Optional[bytes], Optional[bytes]]]
    """Map -> what it held of the packet's flow before and afterwards: ChoiceValue."""
    on_device: bool
    """False: this kernel runs programs only as if the frame had come in by the loopback device."""


class Instance:
    """A second instance of the loaded program (see `instance`); nothing that it does can be seen outside."""

    def __init__(
        self, hook: Hook, program: int, loaded: int, live: Mapping[str, int], private: Mapping[str, int]
    ) -> None:
        self._hook = hook
        self.loaded_id = libbpf.program_info(loaded).id
        """Of the loaded program."""
        self.config = config_of(loaded)
        """Contents of `.rodata.config`."""
        self._program = program
        self._live = live
        self._private = private

    def entry(self, name: str, key: bytes) -> Optional[bytes]:
        """An entry of one of the loaded program's maps."""
        fd = self._live[name]
        return libbpf.map_lookup(fd, key, libbpf.value_width(libbpf.map_info(fd)))

    def entries(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """All entries of one of the loaded program's maps."""
        return read_entries(self._live[name])

    def table(self, lut_id: int, name: str = LUTS) -> bytes:
        """A LUT with its marks, or its history; b"" where there is none."""
        inner = self.entry(name, lut_id.to_bytes(4, sys.byteorder))
        if inner is None:
            return b""
        with libbpf.closing(libbpf.map_by_id(int.from_bytes(inner, sys.byteorder))) as fd:
            # The last word is not a slot.
            return (libbpf.map_lookup(fd, bytes(4), libbpf.map_info(fd).value_size) or b"")[:-4]

    def run(self, frame: bytes, ifindex: int, request: bytes, reply: bytes) -> Run:
        """Run the program on a frame that a device received.

        Args:
            frame: from the Ethernet header on.
            ifindex: of the device.
            request, reply: keys of the flow entries that the packet itself selects.

        Raises:
            BpfError: the kernel cannot run a program on such a frame.
            KernelError: flows change faster than they can be copied.
        """
        before = self._live_flows((request, reply))
        choices = {name: self.entry(name, request) for name in CHOICES}
        for _ in range(_ROUNDS):
            self._set_flows(before)
            self._set_choices(request, choices)
            counted = self._outcomes()
            action, output, on_device = self._push(frame, ifindex)
            after = self._flows()
            # What it wrote where the live maps hold something, it wrote in ignorance of that.
            met = self._live_flows(key for key in after if key not in before)
            if not met:
                recorded = {name: (value, self._private_entry(name, request)) for name, value in choices.items()}
                return Run(action, self._counted(counted), output, before, after, recorded, on_device)
            before.update(met)
        raise KernelError(None, 0, f"the packet met more than {_ROUNDS} flow entries; try again")

    def _push(self, frame: bytes, ifindex: int) -> tuple[str, bytes, bool]:
        on_device = True
        try:
            verdict, output, _ = libbpf.run_program(self._program, frame, self._hook.context(ifindex))
        except BpfError as e:
            # No kernel before 5.15 takes a context for XDP (commit 47316f4a3053).
            if e.errno != errno.EINVAL:
                raise
            on_device = False
            verdict, output, _ = libbpf.run_program(self._program, frame)
        return self._hook.verdicts.get(verdict, str(verdict)), output, on_device

    def _outcomes(self) -> dict[int, tuple[int, int]]:
        return counters(read_entries(self._private[OUTCOMES]))

    def _counted(self, before: Mapping[int, tuple[int, int]]) -> int:
        changed = [number for number, value in self._outcomes().items() if value != before.get(number)]
        if len(changed) != 1:
            raise KernelError(None, 0, f"the program counted the packet under {len(changed)} outcomes instead of one")
        return changed[0]

    def _live_flows(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        # As the system call does it, a look-up does not make an entry younger in its LRU map.
        found = ((key, self.entry(_flow_map(key), key)) for key in keys)
        return {key: value for key, value in found if value is not None}

    def _set_flows(self, flows: Mapping[bytes, bytes]) -> None:
        for name in FLOWS:
            for key, _ in list(read_entries(self._private[name])):
                libbpf.map_delete(self._private[name], key)
        for key, value in flows.items():
            libbpf.map_update(self._private[_flow_map(key)], key, value)

    def _set_choices(self, key: bytes, choices: Mapping[str, Optional[bytes]]) -> None:
        for name, value in choices.items():
            for old, _ in list(read_entries(self._private[name])):
                libbpf.map_delete(self._private[name], old)
            if value is not None:
                libbpf.map_update(self._private[name], key, value)

    def _private_entry(self, name: str, key: bytes) -> Optional[bytes]:
        fd = self._private[name]
        return libbpf.map_lookup(fd, key, libbpf.value_width(libbpf.map_info(fd)))

    def _flows(self) -> dict[bytes, bytes]:
        return {key: value for name in FLOWS for key, value in read_entries(self._private[name])}


def _flow_map(key: bytes) -> str:
    return FLOWS_TCP if FlowKey.from_buffer_copy(key).protocol == _TCP else FLOWS_ANY


@contextmanager
def instance(program: int, data: bytes, hook: Hook) -> Iterator[Instance]:
    """A second instance of a loaded program; it ends with the block.

    Args:
        program: file descriptor of the loaded one.
        data: the object file that it came from.
        hook: what it is for.

    Raises:
        KernelError: `data` is another version of the program.
    """
    config = config_of(program)
    with ExitStack() as stack:
        live = _maps_of(program, stack)
        obj = stack.enter_context(BpfObject(data, hook.object))
        names = map_names(obj)
        if len(config) != len(obj.initial_value(CONFIG)) or not {*SHARED, *RECORDS, OUTCOMES} <= {*live} & {*names}:
            raise KernelError(None, 0, _OTHER_VERSION)
        for name in names:
            if name in SHARED:
                obj.reuse_map(name, live[name])
            elif name in RECORDS:
                obj.set_max_entries(name, _FLOWS_PER_CPU * max(4, libbpf.possible_cpus()))
            elif name not in (OUTCOMES, NEXTHOPS, LOOKUPS):
                obj.set_max_entries(name, 1)
        set_config(obj, hook.function, config)
        obj.load_only((hook.function,))
        obj.load()
        fd = obj.program_fd(hook.function)
        # The tag is a hash of the instructions, without the maps' descriptors.
        if libbpf.program_info(fd).tag != libbpf.program_info(program).tag:
            raise KernelError(None, 0, _OTHER_VERSION)
        yield Instance(hook, fd, program, live, {name: obj.map_fd(name) for name in (*RECORDS, OUTCOMES)})


def _maps_of(program: int, stack: ExitStack) -> dict[str, int]:
    """Name, cut by the kernel at 15 characters -> file descriptor of a program's maps."""
    found = {}
    for number in libbpf.program_map_ids(program):
        fd = stack.enter_context(libbpf.closing(libbpf.map_by_id(number)))
        found[libbpf.map_info(fd).name] = fd
    return found
