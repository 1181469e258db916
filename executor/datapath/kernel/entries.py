"""Map entries in bulk: one system call for thousands where the kernel has batch operations, else one each."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, TypeVar

from datapath.kernel import abi, libbpf
from datapath.kernel.errors import BpfError

_CHUNK = 4096
_LARGEST_CHUNK = 1 << 20
_ENOTSUPP = 524
"""The kernel's own number; libc has no name for it."""
_NO_BATCH = frozenset({errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP})

THREADS = 64
"""Grace periods that are waited for at the same time."""

Entry = tuple[bytes, bytes]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_entries(fd: int) -> Iterator[Entry]:
    """All entries of a map, as user space sees them (`libbpf.value_width`); none of those that hold no data."""
    info = libbpf.map_info(fd)
    if info.type == abi.MapType.PERF_EVENT_ARRAY:
        return
    width = libbpf.value_width(info)
    try:
        yield from _read_batches(fd, info.key_size, width, min(_CHUNK, max(info.max_entries, 1)))
    except BpfError as e:
        if e.errno not in _NO_BATCH:
            raise
        yield from _read_singly(fd, info.key_size, width, info.max_entries)


def _read_batches(fd: int, key_size: int, width: int, chunk: int) -> Iterator[Entry]:
    # A hash table's cursor is a bucket number, an array's a key.
    cursors = [ctypes.create_string_buffer(max(key_size, 8)) for _ in range(2)]
    position: Optional[ctypes.Array[ctypes.c_char]] = None
    end = False
    keys, values = ctypes.create_string_buffer(chunk * key_size), ctypes.create_string_buffer(chunk * width)
    while not end:
        following = cursors[1] if position is cursors[0] else cursors[0]
        try:
            count, end = libbpf.map_lookup_batch(fd, position, keys, values, count=chunk, next_cursor=following)
        except BpfError as e:
            # A bucket that holds more than the buffers: nothing was read.
            if e.errno != errno.ENOSPC or chunk >= _LARGEST_CHUNK:
                raise
            chunk *= 4
            keys, values = ctypes.create_string_buffer(chunk * key_size), ctypes.create_string_buffer(chunk * width)
            continue
        position = following
        raw_keys, raw_values = keys.raw, values.raw
        for index in range(count):
            yield (
                raw_keys[index * key_size : (index + 1) * key_size],
                raw_values[index * width : (index + 1) * width],
            )


def _read_singly(fd: int, key_size: int, width: int, limit: int) -> Iterator[Entry]:
    # When the key behind which to go on was deleted meanwhile, a hash table starts over: hence the set.
    seen: set[bytes] = set()
    key = libbpf.map_next_key(fd, None, key_size)
    while key is not None and len(seen) < limit:
        if key not in seen:
            seen.add(key)
            value = libbpf.map_lookup(fd, key, width)
            if value is not None:
                yield key, value
        key = libbpf.map_next_key(fd, key, key_size)


def together(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Results of `function` for each item, by threads.

    Older kernels (6.1 does, 6.18 does not) wait for an RCU grace period, some 20 ms, for every element of a map of maps
    that a system call reads or writes, in a batch too. Threads wait for the same grace period.
    """
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
        return list(pool.map(function, items))


class Writer:
    """Writes and deletes map entries, and counts the system calls that it takes to do so."""

    def __init__(self) -> None:
        self.writes = 0

    def put(self, fd: int, entries: Sequence[Entry]) -> None:
        """Write `entries` in order.

        Raises:
            PartialWriteError: the map is full (E2BIG) or the kernel refused otherwise; tells how many were written.
        """
        done = 0
        while done < len(entries):
            chunk = entries[done : done + _CHUNK]
            count, error = self._put_batch(fd, chunk) if len(chunk) > 1 else (0, errno.EINVAL)
            done += count
            if error and count == 0 and error in _NO_BATCH:
                done += self._put_singly(fd, chunk, done)
            elif error:
                raise PartialWriteError(error, done)

    def _put_batch(self, fd: int, chunk: Sequence[Entry]) -> tuple[int, int]:
        self.writes += 1
        keys = b"".join(key for key, _ in chunk)
        values = b"".join(value for _, value in chunk)
        return libbpf.map_update_batch(fd, keys, values, len(chunk))

    def _put_singly(self, fd: int, chunk: Sequence[Entry], before: int) -> int:
        for index, (key, value) in enumerate(chunk):
            self.writes += 1
            try:
                libbpf.map_update(fd, key, value)
            except BpfError as e:
                raise PartialWriteError(e.errno or 0, before + index) from e
        return len(chunk)

    def put_together(self, fd: int, entries: Sequence[Entry]) -> None:
        """Write entries of a map of maps, in no order, waiting for few RCU grace periods (see `together`)."""
        size = -(-len(entries) // THREADS)
        starts = range(0, len(entries), size or 1)

        def write(start: int) -> tuple[int, int]:
            chunk = entries[start : start + size]
            keys, values = b"".join(key for key, _ in chunk), b"".join(value for _, value in chunk)
            return libbpf.map_update_batch(fd, keys, values, len(chunk))

        for start, (count, error) in zip(starts, together(write, starts)):
            self.writes += 1
            if error in _NO_BATCH and count == 0:
                self._put_singly(fd, entries[start : start + size], start)
            elif error:
                raise PartialWriteError(error, start + count)

    def put_absent(self, fd: int, entries: Iterable[Entry]) -> int:
        """Write those entries whose key is absent; what no longer fits is left out. Returns how many were written."""
        written = 0
        for key, value in entries:
            self.writes += 1
            try:
                libbpf.map_update(fd, key, value, abi.BPF_NOEXIST)
                written += 1
            except BpfError as e:
                if e.errno == errno.E2BIG:
                    break
                if e.errno != errno.EEXIST:
                    raise
        return written

    def delete(self, fd: int, keys: Sequence[bytes]) -> None:
        """Delete `keys`; absent ones are as good as deleted."""
        done = 0
        while done < len(keys):
            chunk = keys[done : done + _CHUNK]
            self.writes += 1
            count, error = libbpf.map_delete_batch(fd, b"".join(chunk), len(chunk))
            done += count
            if error == 0:
                continue
            if error != errno.ENOENT and error not in _NO_BATCH:
                raise PartialWriteError(error, done)
            for key in chunk[count:]:
                self.writes += 1
                libbpf.map_delete(fd, key)
            done += len(chunk) - count

    def delete_together(self, fd: int, keys: Sequence[bytes]) -> None:
        """Delete entries of a map of maps, absent ones included, waiting for few RCU grace periods."""
        self.writes += len(keys)
        together(lambda key: libbpf.map_delete(fd, key), keys)


class PartialWriteError(OSError):
    """Some of a list of entries were written; `done` of them."""

    def __init__(self, number: int, done: int) -> None:
        super().__init__(number, "writing map entries")
        self.done = done
