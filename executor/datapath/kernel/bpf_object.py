"""An eBPF object file: opened from bytes, configured, loaded."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional

from datapath.kernel import abi, libbpf
from datapath.kernel.errors import BpfError

_LOG_SIZE = (1 << 24) - 1
"""Kernels before 6.4 fail with ENOSPC, and not with the verdict, where the log does not fit; this is their maximum."""
_LOG_TAIL = 64 * 1024
"""What is kept of a log: the reason is at its end."""
_NOT_AUTOLOADED = "not chosen for loading"


@dataclass(frozen=True)
class MapDefinition:
    """A map as the object file declares it."""

    name: str
    type: abi.MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True)
class ObjectProgram:
    """A program of an object file."""

    name: str
    section: str
    type: int
    """`enum bpf_prog_type`; 0 where this libbpf does not know the section's name."""
    attach_type: int
    """`enum bpf_attach_type` that the section's name implies."""


class BpfObject:
    """One object file. Use as a context manager; file descriptors that it hands out end with it.

    Errors are `BpfError`; that of `load` carries the verifier's log.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._lib = libbpf.library()
        self._data = data
        # Anonymous memory costs nothing until the verifier writes to it, which it seldom does.
        self._log = mmap.mmap(-1, _LOG_SIZE + 1)
        options = abi.OpenOptions(
            sz=ctypes.sizeof(abi.OpenOptions),
            object_name=name.encode(),
            kernel_log_buf=ctypes.addressof(ctypes.c_char.from_buffer(self._log)),
            kernel_log_size=_LOG_SIZE,
        )
        self._object: Any = None
        libbpf.messages()
        pointer = self._lib.bpf_object__open_mem(data, ctypes.c_size_t(len(data)), ctypes.byref(options))
        if not pointer:
            raise BpfError(errno.EINVAL, f"{name} is no eBPF object that libbpf can open", libbpf.messages())
        self._object = ctypes.c_void_p(pointer)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the object and close its file descriptors; what is pinned or attached stays."""
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None

    # --- maps ---

    def map_names(self) -> tuple[str, ...]:
        """Names of all maps, `.rodata.config` and its like included."""
        return tuple(self._lib.bpf_map__name(pointer).decode() for pointer in self._walk("bpf_object__next_map"))

    def map_definition(self, name: str) -> MapDefinition:
        """How the map `name` is declared."""
        pointer = self._map(name)
        fields = ("key_size", "value_size", "max_entries", "map_flags")
        numbers = [int(getattr(self._lib, f"bpf_map__{field}")(pointer)) for field in fields]
        return MapDefinition(name, abi.MapType(self._lib.bpf_map__type(pointer)), *numbers)

    def set_max_entries(self, name: str, size: int) -> None:
        """Size of the map when it is created by `load`."""
        self._check(self._lib.bpf_map__set_max_entries(self._map(name), size), f"sizing map {name}")

    def reuse_map(self, name: str, fd: int) -> None:
        """Use an existing map instead of creating one; it must have the declared type and sizes of key and value."""
        self._check(self._lib.bpf_map__reuse_fd(self._map(name), fd), f"using the existing map {name}")

    def set_inner_map(self, name: str, fd: int) -> None:
        """Template of the maps inside the map of maps `name`."""
        self._check(self._lib.bpf_map__set_inner_map_fd(self._map(name), fd), f"choosing the inner map of {name}")

    def forget_pins(self) -> None:
        """Have `load` neither use nor make the pins that the object declares for its maps."""
        for pointer in self._walk("bpf_object__next_map"):
            self._check(self._lib.bpf_map__set_pin_path(pointer, None), "forgetting the pin of a map")

    def initial_value(self, name: str) -> bytes:
        """Contents of a global data section's map (`.rodata.config`) before loading."""
        size = ctypes.c_size_t()
        pointer = self._lib.bpf_map__initial_value(self._map(name), ctypes.byref(size))
        return ctypes.string_at(pointer, size.value) if pointer else b""

    def set_initial_value(self, name: str, value: bytes) -> None:
        """Set the contents of a global data section's map; `value` has exactly the section's size."""
        result = self._lib.bpf_map__set_initial_value(self._map(name), value, ctypes.c_size_t(len(value)))
        self._check(result, f"setting {name} to {len(value)} bytes")

    def map_fd(self, name: str) -> int:
        """File descriptor of a map after `load`; it ends with the object."""
        return self._check(self._lib.bpf_map__fd(self._map(name)), f"map {name}")

    # --- programs ---

    def programs(self) -> tuple[ObjectProgram, ...]:
        """All programs of the object."""
        return tuple(
            ObjectProgram(
                self._lib.bpf_program__name(pointer).decode(),
                self._lib.bpf_program__section_name(pointer).decode(),
                int(self._lib.bpf_program__type(pointer)),
                int(self._lib.bpf_program__expected_attach_type(pointer)),
            )
            for pointer in self._walk("bpf_object__next_program")
        )

    def load_only(self, names: Collection[str]) -> None:
        """Have `load` load these programs and no other."""
        for pointer in self._walk("bpf_object__next_program"):
            chosen = self._lib.bpf_program__name(pointer).decode() in names
            self._lib.bpf_program__set_autoload(pointer, ctypes.c_bool(chosen))

    def set_program_type(self, name: str, kind: abi.ProgramType, attach_type: int = 0) -> None:
        """Say what a program is where its section's name does not."""
        pointer = self._program(name)
        self._check(self._lib.bpf_program__set_type(pointer, int(kind)), f"typing program {name}")
        self._check(self._lib.bpf_program__set_expected_attach_type(pointer, attach_type), f"typing program {name}")

    def set_program_flags(self, name: str, flags: int) -> None:
        """Flags of BPF_PROG_LOAD (`BPF_F_*`) for one program."""
        result = self._lib.bpf_program__set_flags(self._program(name), ctypes.c_uint32(flags))
        self._check(result, f"setting flags of program {name}")

    def program_fd(self, name: str) -> int:
        """File descriptor of a program after `load`; it ends with the object."""
        return self._check(self._lib.bpf_program__fd(self._program(name)), f"program {name}: {_NOT_AUTOLOADED}")

    def load(self) -> None:
        """Create the maps and load the chosen programs; all or nothing.

        Raises:
            BpfError: the kernel refused; `log` ends with the verifier's reason.
        """
        libbpf.messages()
        result = self._lib.bpf_object__load(self._object)
        if result < 0:
            end = self._log.find(b"\0")
            log = self._log[max(0, end - _LOG_TAIL) : end].decode(errors="replace")
            raise BpfError(-result, "the kernel refused the eBPF object", log or libbpf.messages())

    # --- helpers ---

    def _walk(self, function: str) -> Iterator[Any]:
        step = getattr(self._lib, function)
        pointer = step(self._object, None)
        while pointer:
            yield ctypes.c_void_p(pointer)
            pointer = step(self._object, ctypes.c_void_p(pointer))

    def _map(self, name: str) -> Any:
        return self._named("bpf_object__find_map_by_name", name, "map")

    def _program(self, name: str) -> Any:
        return self._named("bpf_object__find_program_by_name", name, "program")

    def _named(self, function: str, name: str, what: str) -> Any:
        pointer = getattr(self._lib, function)(self._object, name.encode())
        if not pointer:
            raise BpfError(ctypes.get_errno(), f"the object has no {what} {name!r}")
        return ctypes.c_void_p(pointer)

    def _check(self, result: int, what: str) -> int:
        return libbpf.check(result, what, libbpf.messages() if result < 0 else "")
