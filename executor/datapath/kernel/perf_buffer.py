"""Reading a perf event array: records that BPF programs wrote with bpf_perf_event_output, of all CPUs."""

from __future__ import annotations

import ctypes
import errno
from types import TracebackType
from typing import Callable, Optional

from datapath.kernel import libbpf
from datapath.kernel.errors import BpfError

PAGES = 64
"""Of each CPU's ring; a power of two."""
_SAMPLE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_LOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64)


class PerfBuffer:
    """Calls `take` with each record; use as a context manager. `lost` counts those that found the ring full."""

    def __init__(self, map_fd: int, take: Callable[[bytes], None]) -> None:
        self.lost = 0

        def on_sample(_: object, __: int, data: int, size: int) -> None:
            take(ctypes.string_at(data, size))

        def on_lost(_: object, __: int, count: int) -> None:
            self.lost += count

        # The library calls them for as long as the buffer exists.
        self._callbacks = (_SAMPLE(on_sample), _LOST(on_lost))
        self._library = libbpf.library()
        self._library.perf_buffer__new.restype = ctypes.c_void_p
        made = self._library.perf_buffer__new(map_fd, ctypes.c_size_t(PAGES), *self._callbacks, None, None)
        if not made:
            raise BpfError(ctypes.get_errno(), "opening the rings of a perf event array")
        self._buffer = ctypes.c_void_p(made)

    def __enter__(self) -> PerfBuffer:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._library.perf_buffer__free(self._buffer)

    def poll(self, milliseconds: int) -> None:
        """Take what is there, or wait for it so long."""
        result = self._library.perf_buffer__poll(self._buffer, milliseconds)
        if result < 0 and result != -errno.EINTR:
            raise BpfError(-result, "reading the rings of a perf event array")
