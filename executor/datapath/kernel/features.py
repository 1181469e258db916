"""What this kernel can do: each feature probed by using it (never by version), without a trace left behind."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datapath.kernel import abi, libbpf, neighbours
from datapath.kernel.abi import AttachType, MapType, ProgramType
from datapath.kernel.errors import BpfError

_RETURN_1 = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
"""r0 = 1; exit: accepted of every type of program."""
_READ_TIME_TYPE = struct.pack("=BBhiBBhi", 0x71, 0x10, 180, 0, 0x95, 0, 0, 0)
"""r0 = skb->tstamp_type; exit"""
_NO_DEVICE = 0x7FFFFFFF
_HELPERS = {"fib_lookup": 69, "jiffies64": 118, "get_netns_cookie": 122, "loop": 181}
"""`enum bpf_func_id`"""


@dataclass(frozen=True)
class Feature:
    """A kernel feature."""

    name: str
    meaning: str
    """What having it means here, in one line."""
    probe: Callable[[], bool]
    """Raises OSError where the answer is no; BpfError included."""


def _bpf_syscall() -> bool:
    os.close(libbpf.map_create(MapType.ARRAY, "probe", 4, 4, max_entries=1))
    return True


def _btf() -> bool:
    return Path("/sys/kernel/btf/vmlinux").exists()


def _jit() -> bool:
    with libbpf.closing(libbpf.program_load(ProgramType.XDP, _RETURN_1)) as program:
        return bool(libbpf.program_info(program).jited_prog_len)


def _map_type(kind: MapType) -> Callable[[], bool]:
    return lambda: bool(libbpf.library().libbpf_probe_bpf_map_type(int(kind), None) == 1)


def _helper(kind: ProgramType, name: str) -> Callable[[], bool]:
    return lambda: bool(libbpf.library().libbpf_probe_bpf_helper(int(kind), _HELPERS[name], None) == 1)


def _batch_operations() -> bool:
    with libbpf.closing(libbpf.map_create(MapType.HASH, "probe", 4, 4, max_entries=1)) as fd:
        buffers = [ctypes.create_string_buffer(8) for _ in range(3)]
        libbpf.map_lookup_batch(fd, None, buffers[0], buffers[1], count=1, next_cursor=buffers[2])
    return True


def _lut_batch() -> bool:
    with (
        libbpf.closing(libbpf.map_create(MapType.ARRAY, "probe", 4, 4, max_entries=1)) as inner,
        libbpf.closing(libbpf.map_create(MapType.ARRAY_OF_MAPS, "probe", 4, 4, max_entries=1, inner_fd=inner)) as outer,
    ):
        _, error = libbpf.map_update_batch(outer, bytes(4), struct.pack("=I", inner), 1)
    return error == 0


def _type_in_kernel(name: str) -> bool:
    """Whether the kernel was built with a structure of that name, by its own type information."""
    kind_struct = 4
    lib = libbpf.library()
    btf = ctypes.c_void_p(lib.btf__load_vmlinux_btf())
    if not btf:
        return False
    try:
        return bool(lib.btf__find_by_name_kind(btf, name.encode(), kind_struct) > 0)
    finally:
        lib.btf__free(btf)


def _link(kind: ProgramType, attach_type: AttachType, target: int, refusal: int) -> Callable[[], bool]:
    """A link to what does not exist: a kernel that knows such links refuses the target, not the command."""

    def probe() -> bool:
        with libbpf.closing(libbpf.program_load(kind, _RETURN_1)) as program:
            try:
                os.close(libbpf.link_create(program, target, attach_type))
            except BpfError as e:
                return e.errno == refusal
        return True

    return probe


def _xdp_frags() -> bool:
    os.close(libbpf.program_load(ProgramType.XDP, _RETURN_1, flags=abi.BPF_F_XDP_HAS_FRAGS))
    return True


def _received_on() -> bool:
    with libbpf.closing(libbpf.program_load(ProgramType.XDP, _RETURN_1)) as program:
        libbpf.run_program(program, bytes(60), abi.XdpMd())
    return True


def _qdisc(name: str) -> Callable[[], bool]:
    """Whether a qdisc is built in, loaded, or there as a module (which is not loaded to find out)."""

    def probe() -> bool:
        symbols = Path("/proc/kallsyms").read_text().splitlines()
        return any(f" {name}_qdisc_ops" in line for line in symbols) or _is_module(f"sch_{name}")

    return probe


def _is_module(name: str) -> bool:
    modules = Path("/lib/modules", os.uname().release)
    lists = (modules / "modules.builtin", modules / "modules.dep")
    return any(f"/{name}.ko" in path.read_text() for path in lists if path.exists())


def _congestion_control(name: str) -> Callable[[], bool]:
    """The same for an algorithm of TCP's."""
    listed = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
    return lambda: name in listed.read_text().split() or _is_module(f"tcp_{name}")


def _delivery_time() -> bool:
    """Devices leave a packet the time at which it is to leave, since programs can tell that from when it came."""
    os.close(libbpf.program_load(ProgramType.SCHED_CLS, _READ_TIME_TYPE))
    return True


FEATURES: tuple[Feature, ...] = (
    Feature("bpf", "bpf(2) may be used here", _bpf_syscall),
    Feature("btf", "the kernel describes its own types: objects built elsewhere can be loaded", _btf),
    Feature("jit", "programs run as machine code", _jit),
    Feature("map_in_map", "lookup tables are swapped as one pointer", _map_type(MapType.ARRAY_OF_MAPS)),
    Feature("lru_hash", "flow tables evict their coldest flows", _map_type(MapType.LRU_HASH)),
    Feature("batch", "thousands of map entries by one system call", _batch_operations),
    Feature("map_in_map_batch", "many lookup tables swapped by one system call", _lut_batch),
    Feature("xdp_link", "XDP programs are replaced atomically and stay when the daemon stops",
            lambda: _type_in_kernel("bpf_xdp_link")),
    Feature("xdp_frags", "XDP programs for devices with an MTU beyond one page", _xdp_frags),
    Feature("fib_lookup", "XDP asks the kernel's own routing table", _helper(ProgramType.XDP, "fib_lookup")),
    Feature("jiffies64", "flows are stamped with the kernel's tick", _helper(ProgramType.XDP, "jiffies64")),
    Feature("bpf_loop", "programs may loop without being unrolled", _helper(ProgramType.XDP, "loop")),
    Feature("tcx", "tc programs are attached by links; else by filters of the clsact qdisc",
            _link(ProgramType.SCHED_CLS, AttachType.TCX_INGRESS, _NO_DEVICE, errno.ENODEV)),
    Feature("cgroup_link", "cgroup programs are replaced atomically and stay when the daemon stops",
            _link(ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_INGRESS, _NO_DEVICE, errno.EBADF)),
    Feature("neighbour_managed", "the kernel keeps next hops resolved by itself; else the daemon refreshes them",
            neighbours.managed_supported),
    Feature("test_run_device", "a frame can be pushed through a program as if a device had received it", _received_on),
    Feature("sch_fq", "the qdisc that bandwidth limits need", _qdisc("fq")),
    Feature("tcp_bbr", "TCP can use BBR", _congestion_control("bbr")),
    Feature("delivery_time", "packets keep their departure time across devices, as BBR of endpoints needs",
            _delivery_time),
    Feature("sock_ops_netns", "programs can tell the host's sockets from those of endpoints, for BBR of the host alone",
            _helper(ProgramType.SOCK_OPS, "get_netns_cookie")),
)  # fmt: skip


@functools.cache
def has(name: str) -> bool:
    """Whether the kernel has the feature of that name."""
    feature = next(feature for feature in FEATURES if feature.name == name)
    try:
        return feature.probe()
    except OSError:
        return False


def probe() -> dict[str, bool]:
    """Feature name -> present."""
    return {feature.name: has(feature.name) for feature in FEATURES}
