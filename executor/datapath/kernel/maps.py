"""The load balancer's maps: created from the object's definitions, pinned, resized through a stage beside them."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Optional

from datapath.compile import layouts
from datapath.kernel import abi, libbpf
from datapath.kernel.abi import MapType
from datapath.kernel.bpf_object import BpfObject, MapDefinition
from datapath.kernel.entries import Entry, PartialWriteError, Writer, read_entries, together
from datapath.kernel.errors import BpfError
from datapath.kernel.objects import LOAD_BALANCER, ObjectSource
from datapath.kernel.pins import Pins, unpin
from datapath.plan.history import moved, owners

_TEMPLATE = "lut_template"
"""Pinned beside the maps: an empty table, by whose size the kernel admits tables into the maps of tables."""
_TABLES = (layouts.LUTS, layouts.HISTORIES)
_FLOWS = (layouts.FLOWS_TCP, layouts.FLOWS_ANY, layouts.CHOICES_TCP, layouts.CHOICES_ANY)
_REMEMBERED = (layouts.SERVICES, layouts.ADDRESSES)
"""Maps whose answers programs remember."""
NO_TABLES: Mapping[int, bytes] = {}
_LUT_BATCH = 512
"""Tables that are built, each an open file descriptor, before they are swapped in together."""


def _u32(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


class Maps:
    """The load balancer's maps. A map that is staged hides the pinned one of its name until `commit`."""

    def __init__(self, pins: Pins, objects: ObjectSource, writer: Writer) -> None:
        self._pins = pins
        self._objects = objects
        self.writer = writer
        self._copied: dict[str, set[int]] = {}

    # --- finding ---

    def names(self) -> tuple[str, ...]:
        """Names of the pinned maps."""
        return tuple(path.name for path in _files(self._pins.maps) if path.name != _TEMPLATE)

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """File descriptor of the staged map, else of the pinned one.

        Raises:
            BpfError: there is neither (ENOENT).
        """
        for directory in (self._pins.staged, self._pins.maps):
            fd = libbpf.pinned(directory / name)
            if fd is not None:
                with libbpf.closing(fd):
                    yield fd
                return
        raise BpfError(errno.ENOENT, f"map {name} is not pinned in {self._pins.maps}")

    def info(self, name: str) -> abi.MapInfo:
        """What the kernel says of a map."""
        with self.opened(name) as fd:
            return libbpf.map_info(fd)

    def ids(self) -> dict[int, str]:
        """Id -> name of the maps in service (not those staged)."""
        return {info.id: name for name, info in self._infos(self._pins.maps).items()}

    def staged_ids(self) -> dict[int, str]:
        """Id -> name of the staged maps."""
        return {info.id: name for name, info in self._infos(self._pins.staged).items()}

    def _infos(self, directory: Path) -> dict[str, abi.MapInfo]:
        infos = {}
        for path in _files(directory):
            if path.name in (_TEMPLATE, self._pins.load_balancer.name):
                continue
            fd = libbpf.pinned(path)
            if fd is not None:
                with libbpf.closing(fd):
                    infos[path.name] = libbpf.map_info(fd)
        return infos

    def sizes(self) -> dict[str, int]:
        """Map name -> max_entries, of the maps in service."""
        return {name: int(info.max_entries) for name, info in self._infos(self._pins.maps).items()}

    # --- reading ---

    def entries(self, name: str) -> Iterator[Entry]:
        """All entries of a map."""
        with self.opened(name) as fd:
            yield from read_entries(fd)

    def lookup(self, name: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries of `keys` that exist."""
        with self.opened(name) as fd:
            width = libbpf.value_width(libbpf.map_info(fd))
            found = ((key, libbpf.map_lookup(fd, key, width)) for key in keys)
            return {key: value for key, value in found if value is not None}

    def luts(self, ids: Iterable[int], expected: Mapping[int, bytes] = NO_TABLES) -> dict[int, bytes]:
        """LUT id -> table, of those of `ids` that exist; the very object of `expected` where it is equal.

        All tables may be hundreds of megabytes. Only those of `ids` are asked for: on older kernels asking for one
        takes a grace period, whether it exists or not.
        """
        return {number: _owners(value[:-4], expected.get(number)) for number, value in self._tables(layouts.LUTS, ids)}

    def histories(self, ids: Iterable[int]) -> dict[int, bytes]:
        """LUT id -> previous owners of its slots, of those of `ids` that have any."""
        return {number: value[:-4] for number, value in self._tables(layouts.HISTORIES, ids)}

    def _tables(self, name: str, ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        wanted = sorted(ids)
        outer = libbpf.pinned(self._pins.maps / name)
        if outer is None:
            return
        with libbpf.closing(outer):
            found = together(lambda number: libbpf.map_lookup(outer, _u32(number), 4), wanted)
        for number, inner in zip(wanted, found):
            if inner is not None:
                with libbpf.closing(libbpf.map_by_id(_number(inner))) as fd:
                    yield number, libbpf.map_lookup(fd, _u32(0), libbpf.map_info(fd).value_size) or b""

    # --- writing ---

    def put(self, name: str, entries: Sequence[Entry]) -> None:
        """Write entries in order."""
        with self.opened(name) as fd, self._changing(name):
            self.writer.put(fd, entries)

    def delete(self, name: str, keys: Sequence[bytes]) -> None:
        """Delete entries; an array's are set to zero instead."""
        with self.opened(name) as fd, self._changing(name):
            info = libbpf.map_info(fd)
            if info.type == MapType.ARRAY:
                self.writer.put(fd, [(key, bytes(info.value_size)) for key in keys])
            else:
                self.writer.delete(fd, keys)

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        """A change of a map, done or given up halfway: what programs remember of it is void afterwards."""
        try:
            yield
        finally:
            if name in _REMEMBERED:
                self.renew()

    def renew(self) -> None:
        """Have programs ask SERVICES and ADDRESSES again; nothing to do where no program remembers them."""
        for directory in (self._pins.maps, self._pins.staged):
            fd = libbpf.pinned(directory / layouts.GENERATION)
            if fd is not None:
                with libbpf.closing(fd):
                    before = _number(libbpf.map_lookup(fd, _u32(0), 4) or bytes(4))
                    self.writer.put(fd, [(_u32(0), _u32((before + 1) & 0xFFFFFFFF))])

    def put_luts(self, tables: Sequence[tuple[int, bytes]], with_history: AbstractSet[int] = frozenset()) -> None:
        """Build new tables, then swap them in: a packet sees a table as it was or as it will be.

        Those `with_history` are marked where a slot's owner is not who it was before; the histories come first.
        """
        marked = dict(tables)
        histories = []
        if with_history:
            before = dict(self._tables(layouts.LUTS, with_history))
            known = self.histories(with_history & before.keys())
            for number in with_history & marked.keys():
                old = before.get(number, b"")[:-4]
                marked[number], history = moved(old, known.get(number), marked[number])
                if history is not None and history != known.get(number):
                    histories.append((number, history))
            self._put_tables(layouts.HISTORIES, histories)
        self._put_tables(layouts.LUTS, [(number, marked[number]) for number, _ in tables])

    def _put_tables(self, name: str, tables: Sequence[tuple[int, bytes]]) -> None:
        clock = _u32(int(time.monotonic()))
        with self.opened(name) as outer:
            for start in range(0, len(tables), _LUT_BATCH):
                with ExitStack() as stack:
                    entries = []
                    for number, table in tables[start : start + _LUT_BATCH]:
                        inner = stack.enter_context(libbpf.closing(_create_lut(len(table) + 4)))
                        self.writer.put(inner, [(_u32(0), table + clock)])
                        entries.append((_u32(number), _u32(inner)))
                    try:
                        self.writer.put_together(outer, entries)
                    except PartialWriteError as e:
                        e.done += start
                        raise

    def delete_luts(self, numbers: Sequence[int]) -> None:
        """Remove tables and their histories."""
        self._delete_tables(layouts.LUTS, numbers)
        histories = self.histories(numbers)
        if histories:
            self._delete_tables(layouts.HISTORIES, list(histories))

    def _delete_tables(self, name: str, numbers: Sequence[int]) -> None:
        with self.opened(name) as outer:
            present = [number for number in numbers if 0 <= number < libbpf.map_info(outer).max_entries]
            self.writer.delete_together(outer, [_u32(number) for number in present])

    # --- making, resizing ---

    def prepare(
        self,
        sizes: Mapping[str, int],
        table_size: int,
        replaced: AbstractSet[str] = frozenset(),
        doomed: Optional[Mapping[str, AbstractSet[bytes]]] = None,
    ) -> None:
        """Have every map of the object exist with these sizes: the pinned one where it fits, else a staged one.

        Those of `replaced` are staged though they fit.

        A map that `sizes` does not name has the size that the object declares. A staged map gets the entries of
        the pinned one, without the keys that `doomed` names: those are about to be deleted, and a smaller map may have
        no room for them meanwhile. What is in the stage already is removed first.
        """
        self.discard()
        self._pins.create()
        with BpfObject(self._objects.read(), LOAD_BALANCER) as obj, ExitStack() as stack:
            obj.load_only(())
            missing = []
            for name in map_names(obj):
                definition = obj.map_definition(name)
                size = sizes.get(name, definition.max_entries)
                fd = None if name in replaced else libbpf.pinned(self._pins.maps / name)
                if fd is not None and self._fits(stack.enter_context(libbpf.closing(fd)), definition, size, table_size):
                    obj.reuse_map(name, fd)
                    continue
                missing.append(name)
                obj.set_max_entries(name, size)
            if any(name in missing for name in _TABLES):
                template = stack.enter_context(libbpf.closing(_create_lut(4 * table_size + 4)))
                libbpf.pin(template, self._pins.staged / _TEMPLATE)
                for name in _TABLES:
                    if name in missing:
                        obj.set_inner_map(name, template)
            obj.load()
            for name in missing:
                libbpf.pin(obj.map_fd(name), self._pins.staged / name)
        for name in missing:
            self._copy(name, (doomed or {}).get(name, frozenset()))

    def _fits(self, fd: int, definition: MapDefinition, size: int, table_size: int) -> bool:
        info = libbpf.map_info(fd)
        if definition.flags & abi.BPF_F_NO_COMMON_LRU:
            # The kernel rounds the size of a per-CPU LRU to a multiple of the CPUs.
            cpus = libbpf.possible_cpus()
            size = -(-size // cpus) * cpus
        wanted = (definition.type, definition.key_size, definition.value_size, definition.flags, size)
        present = (info.type, info.key_size, info.value_size, info.flags, info.max_entries)
        return wanted == present and (definition.type != MapType.ARRAY_OF_MAPS or self.table_size() == table_size)

    def table_size(self) -> Optional[int]:
        """Slots of a table that the pinned map of tables admits, None where there is none."""
        fd = libbpf.pinned(self._pins.maps / _TEMPLATE)
        if fd is None:
            return None
        with libbpf.closing(fd):
            return int(libbpf.map_info(fd).value_size) // 4 - 1

    def _copy(self, name: str, doomed: AbstractSet[bytes]) -> None:
        """Entries of the pinned map into the staged one, where both exist with one layout and they fit."""
        old = libbpf.pinned(self._pins.maps / name)
        if old is None or name in _TABLES:
            return
        with libbpf.closing(old), self.opened(name) as new:
            before, after = libbpf.map_info(old), libbpf.map_info(new)
            if (before.key_size, before.value_size) != (after.key_size, after.value_size):
                return
            dense = after.type in (MapType.ARRAY, MapType.PERCPU_ARRAY)
            entries = [
                (key, value)
                for key, value in read_entries(old)
                if key not in doomed and (not dense or (_number(key) < after.max_entries and any(value)))
            ]
            if name in _FLOWS:
                self._copied[name] = {hash(key) for key, _ in entries}
            self.writer.put(new, entries)

    def catch_up(self) -> None:
        """After the swap: flows that the old program began while the staged maps were being filled."""
        for name, copied in self._copied.items():
            old = libbpf.pinned(self._pins.maps / name)
            if old is not None:
                with libbpf.closing(old), self.opened(name) as new:
                    begun = ((key, value) for key, value in read_entries(old) if hash(key) not in copied)
                    self.writer.put_absent(new, begun)
        self._copied.clear()

    def commit(self) -> None:
        """The staged maps take the places of the pinned ones; pins of maps that the object no longer has go."""
        with BpfObject(self._objects.read(), LOAD_BALANCER) as obj:
            current = {*map_names(obj), _TEMPLATE}
        replaced = [path for path in _files(self._pins.staged) if path.name in current]
        for path in replaced:
            path.rename(self._pins.maps / path.name)
        if any(path.name in _REMEMBERED for path in replaced):
            self.renew()
        for path in _files(self._pins.maps):
            if path.name not in current:
                unpin(path)

    def discard(self) -> None:
        """Forget what is staged."""
        self._copied.clear()
        for path in _files(self._pins.staged):
            unpin(path)

    def remove(self) -> None:
        """Unpin all maps."""
        self.discard()
        for path in _files(self._pins.maps):
            unpin(path)


def _owners(slots: bytes, expected: Optional[bytes]) -> bytes:
    """As `owners`, which is dear where no slot is marked; `expected` itself where that is equal."""
    if slots == expected:
        return expected
    table = owners(slots)
    return expected if table == expected else table


def map_names(obj: BpfObject) -> tuple[str, ...]:
    """Maps of an object without those of its global data sections."""
    return tuple(name for name in obj.map_names() if "." not in name)


def _create_lut(size: int) -> int:
    return libbpf.map_create(MapType.ARRAY, "lut", 4, size, max_entries=1)


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []
