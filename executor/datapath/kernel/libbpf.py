"""libbpf.so.1 through ctypes: the library, and the bpf(2) calls that need no object file.

File descriptors are plain integers that the caller closes (`closing`). Every failure is a `BpfError`.
libbpf >= 1.0 returns -errno from every function, and NULL with errno set where it returns a pointer.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from datapath.kernel import abi
from datapath.kernel.errors import BpfError, LibbpfMissingError

_POINTERS = (
    "bpf_object__open_mem",
    "bpf_object__next_map",
    "bpf_object__next_program",
    "bpf_object__find_map_by_name",
    "bpf_object__find_program_by_name",
    "bpf_map__initial_value",
    "bpf_map__inner_map",
    "btf__load_vmlinux_btf",
    "btf__load_from_kernel_by_id",
    "btf__type_by_id",
)
_STRINGS = ("bpf_map__name", "bpf_program__name", "bpf_program__section_name", "btf__name_by_offset")
_PRINTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _Messages(threading.local):
    """Of the calling thread: one that looks and one that changes are not told each other's."""

    def __init__(self) -> None:
        self.texts: list[str] = []


_messages = _Messages()


@_PRINTER  # type: ignore[untyped-decorator]
def _keep_message(level: int, text: bytes, arguments: int) -> int:
    """libbpf's warnings: kept for the next error instead of written to stderr."""
    if level == 0:
        buffer = ctypes.create_string_buffer(4096)
        # A va_list is passed as a pointer on every 64-bit ABI that Linux has BPF for.
        ctypes.CDLL(None).vsnprintf(buffer, ctypes.c_size_t(len(buffer)), text, ctypes.c_void_p(arguments))
        _messages.texts.append(buffer.value.decode(errors="replace"))
        del _messages.texts[:-50]
    return 0


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf.so.1, loaded on first use.

    Raises:
        LibbpfMissingError: the node has no libbpf >= 1.0.
    """
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as e:
        raise LibbpfMissingError(
            errno.ENOENT, f"libbpf.so.1 (libbpf >= 1.0) is not on this node: install the package libbpf1 ({e})"
        ) from e
    for name in _POINTERS:
        getattr(lib, name).restype = ctypes.c_void_p
    for name in _STRINGS:
        getattr(lib, name).restype = ctypes.c_char_p
    lib.libbpf_set_print.restype = ctypes.c_void_p
    lib.libbpf_set_print(_keep_message)
    return lib


def messages() -> str:
    """What libbpf complained about since the last call."""
    text = "".join(_messages.texts)
    _messages.texts.clear()
    return text


def check(result: int, what: str, log: str = "") -> int:
    """`result` of a libbpf function, or `BpfError` when it is -errno."""
    if result < 0:
        raise BpfError(-result, what, log)
    return result


def _sized(options: Any) -> Any:
    options.sz = ctypes.sizeof(options)
    return ctypes.byref(options)


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close `fd` at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


# --- maps ---


def map_create(
    kind: abi.MapType, name: str, key_size: int, value_size: int, *, max_entries: int, flags: int = 0, inner_fd: int = 0
) -> int:
    """Create a map; returns its file descriptor."""
    options = abi.MapCreateOptions(map_flags=flags, inner_map_fd=inner_fd)
    short = name[: abi.OBJECT_NAME_LENGTH - 1].encode()
    fd = library().bpf_map_create(int(kind), short, key_size, value_size, max_entries, _sized(options))
    return check(fd, f"creating map {name}")


def map_lookup(fd: int, key: bytes, size: int) -> Optional[bytes]:
    """Value of `key`, `size` bytes (per-CPU maps: all CPUs', see `value_width`); None where it is absent."""
    value = ctypes.create_string_buffer(size)
    result = library().bpf_map_lookup_elem(fd, key, value)
    if result == -errno.ENOENT:
        return None
    check(result, "reading a map entry")
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = abi.BPF_ANY) -> None:
    """Write one entry."""
    check(library().bpf_map_update_elem(fd, key, value, ctypes.c_uint64(flags)), "writing a map entry")


def map_delete(fd: int, key: bytes) -> bool:
    """Delete one entry; False where it was absent."""
    result = library().bpf_map_delete_elem(fd, key)
    if result == -errno.ENOENT:
        return False
    check(result, "deleting a map entry")
    return True


def map_next_key(fd: int, key: Optional[bytes], size: int) -> Optional[bytes]:
    """The key behind `key` (None: the first), None at the end."""
    following = ctypes.create_string_buffer(size)
    result = library().bpf_map_get_next_key(fd, key, following)
    if result == -errno.ENOENT:
        return None
    check(result, "walking a map")
    return following.raw


def map_lookup_batch(
    fd: int, cursor: Optional[Any], keys: Any, values: Any, *, count: int, next_cursor: Any
) -> tuple[int, bool]:
    """One BPF_MAP_LOOKUP_BATCH into the buffers; returns (entries read, whether the walk is at its end)."""
    number = ctypes.c_uint32(count)
    options = abi.BatchOptions()
    result = library().bpf_map_lookup_batch(
        fd, cursor, next_cursor, keys, values, ctypes.byref(number), _sized(options)
    )
    if result == -errno.ENOENT:
        return number.value, True
    check(result, "reading a map in batches")
    return number.value, False


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> tuple[int, int]:
    """One BPF_MAP_UPDATE_BATCH; returns (entries written, errno, 0 when all were)."""
    number = ctypes.c_uint32(count)
    options = abi.BatchOptions()
    result = library().bpf_map_update_batch(fd, keys, values, ctypes.byref(number), _sized(options))
    return _batch_result(number.value, count, result)


def map_delete_batch(fd: int, keys: bytes, count: int) -> tuple[int, int]:
    """One BPF_MAP_DELETE_BATCH; returns (entries deleted, errno); stops at an absent key with ENOENT."""
    number = ctypes.c_uint32(count)
    options = abi.BatchOptions()
    result = library().bpf_map_delete_batch(fd, keys, ctypes.byref(number), _sized(options))
    return _batch_result(number.value, count, result)


def _batch_result(done: int, count: int, result: int) -> tuple[int, int]:
    if result >= 0:
        return done, 0
    # The kernel leaves `count` alone when it refuses the command as a whole.
    return (0 if done == count else done), -result


def possible_cpus() -> int:
    """CPUs that per-CPU values have room for."""
    return check(library().libbpf_num_possible_cpus(), "counting CPUs")


def value_width(info: abi.MapInfo) -> int:
    """Bytes of one value as user space sees it: per-CPU maps give every CPU's, each on 8 bytes; fd maps an id."""
    if info.type in (abi.MapType.PERCPU_HASH, abi.MapType.PERCPU_ARRAY, abi.MapType.LRU_PERCPU_HASH):
        return int((info.value_size + 7) // 8 * 8 * possible_cpus())
    return int(info.value_size)


# --- objects of the kernel: pins, ids, information ---


def pin(fd: int, path: Path) -> None:
    """Pin a map, program or link in a bpffs; the path must not exist."""
    check(library().bpf_obj_pin(fd, str(path).encode()), f"pinning {path}")


def pinned(path: Path) -> Optional[int]:
    """File descriptor of what is pinned at `path`, None where nothing is."""
    result = library().bpf_obj_get(str(path).encode())
    if result == -errno.ENOENT:
        return None
    return check(result, f"opening {path}")


def map_by_id(number: int) -> int:
    """File descriptor of a map."""
    return check(library().bpf_map_get_fd_by_id(number), f"opening map {number}")


def program_by_id(number: int) -> int:
    """File descriptor of a program."""
    return check(library().bpf_prog_get_fd_by_id(number), f"opening program {number}")


def link_by_id(number: int) -> int:
    """File descriptor of a link."""
    return check(library().bpf_link_get_fd_by_id(number), f"opening link {number}")


def _info(fd: int, structure: Any, what: str) -> Any:
    length = ctypes.c_uint32(ctypes.sizeof(structure))
    check(library().bpf_obj_get_info_by_fd(fd, ctypes.byref(structure), ctypes.byref(length)), what)
    return structure


def map_info(fd: int) -> abi.MapInfo:
    """What the kernel says of a map."""
    info: abi.MapInfo = _info(fd, abi.MapInfo(), "reading map information")
    return info


def link_info(fd: int) -> abi.LinkInfo:
    """What the kernel says of a link."""
    info: abi.LinkInfo = _info(fd, abi.LinkInfo(), "reading link information")
    return info


def program_info(fd: int) -> abi.ProgramInfo:
    """What the kernel says of a program."""
    info: abi.ProgramInfo = _info(fd, abi.ProgramInfo(), "reading program information")
    return info


def program_map_ids(fd: int) -> tuple[int, ...]:
    """Ids of the maps that a program uses."""
    count = program_info(fd).nr_map_ids
    ids = (ctypes.c_uint32 * max(count, 1))()
    _info(fd, abi.ProgramInfo(nr_map_ids=count, map_ids=ctypes.addressof(ids)), "reading a program's maps")
    return tuple(ids[:count])


# --- programs and links ---


def program_load(kind: abi.ProgramType, instructions: bytes, flags: int = 0, attach_type: int = 0) -> int:
    """Load instructions (`struct bpf_insn`, 8 bytes each); returns the program's file descriptor."""
    options = abi.ProgLoadOptions(prog_flags=flags, expected_attach_type=attach_type)
    count = ctypes.c_size_t(len(instructions) // 8)
    fd = library().bpf_prog_load(int(kind), b"probe", b"GPL", instructions, count, _sized(options))
    return check(fd, "loading a probe program")


def link_create(program: int, target: int, attach_type: int, flags: int = 0) -> int:
    """Attach a program; `target` is an interface index (XDP, TCX) or a directory's file descriptor (cgroup)."""
    options = abi.LinkCreateOptions(flags=flags)
    return check(library().bpf_link_create(program, target, int(attach_type), _sized(options)), "attaching")


def link_update(link: int, program: int) -> None:
    """Replace a link's program; no packet goes unseen."""
    options = abi.LinkUpdateOptions()
    check(library().bpf_link_update(link, program, _sized(options)), "replacing a link's program")


def link_detach(link: int) -> None:
    """Detach a link now, whoever holds it."""
    check(library().bpf_link_detach(link), "detaching a link")


def run_program(
    program: int, data: bytes, context: Optional[ctypes.Structure] = None, repeat: int = 1
) -> tuple[int, bytes, int]:
    """Run a program on a packet (BPF_PROG_TEST_RUN).

    Args:
        program: file descriptor.
        data: the frame, at least 14 bytes.
        context: e.g. `abi.XdpMd` with the ingress device; its `data_end` is set here.
        repeat: runs; the packet is not restored between them.

    Returns:
        (verdict, frame afterwards, average nanoseconds of a run)
    """
    output = ctypes.create_string_buffer(len(data) + 4096)
    options = abi.TestRunOptions(
        data_in=ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p),
        data_out=ctypes.addressof(output),
        data_size_in=len(data),
        data_size_out=len(output),
        repeat=repeat,
    )
    if context is not None:
        if isinstance(context, abi.XdpMd):
            context.data_end = len(data)
        options.ctx_in = ctypes.addressof(context)
        options.ctx_size_in = ctypes.sizeof(context)
    check(library().bpf_prog_test_run_opts(program, _sized(options)), "running a program on a packet")
    return int(options.retval), output.raw[: options.data_size_out], int(options.duration)


def function_name(program: int) -> str:
    """Full name of a loaded program's function, from its BTF; the kernel's own 15 characters where it has none."""
    info = program_info(program)
    if not info.btf_id or not info.nr_func_info or info.func_info_rec_size != ctypes.sizeof(abi.FunctionInfo):
        return info.name
    first = abi.FunctionInfo()
    size = ctypes.sizeof(first)
    request = abi.ProgramInfo(nr_func_info=1, func_info_rec_size=size, func_info=ctypes.addressof(first))
    _info(program, request, "reading a program's functions")
    lib = library()
    btf = ctypes.c_void_p(lib.btf__load_from_kernel_by_id(info.btf_id))
    if not btf:
        return info.name
    try:
        entry = lib.btf__type_by_id(btf, first.type_id)
        offset = ctypes.c_uint32.from_address(entry).value if entry else 0
        name = lib.btf__name_by_offset(btf, offset)
        return name.decode() if name else info.name
    finally:
        lib.btf__free(btf)
