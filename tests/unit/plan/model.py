"""A kernel in memory: executes operations, and checks after each that every packet is served."""

import struct
from dataclasses import replace

from datapath.compile.layouts import (
    ADDRESSES,
    BACKENDS,
    LUTS,
    PEERS,
    SERVICES,
    VLANS_IN,
    VLANS_OUT,
    BackendValue,
    ServiceValue,
)
from datapath.plan import operations as op
from datapath.state.kernel_state import KernelState, LoadBalancer

ENTRY_MAPS = (SERVICES, BACKENDS, ADDRESSES, VLANS_OUT, VLANS_IN, PEERS)


def reachable(maps):
    """Frontend -> the backends that its packets can reach; one of another table is not taken (backend.h)."""
    found = {}
    for key, value in maps[SERVICES].items():
        service = ServiceValue.from_buffer_copy(value)
        ids = set(memoryview(maps[LUTS].get(service.lut_id, b"")).cast("I")) if service.backend_count else set()
        backends = [maps[BACKENDS].get(struct.pack("=I", each), bytes(24)) for each in ids]
        found[key] = {(each[:19]) for each in backends if BackendValue.from_buffer_copy(each).lut_id == service.lut_id}
    return found


class Kernel:
    """Maps of fixed size, staged ones beside them, one load balancer."""

    def __init__(self, state):
        self.sizes = dict(state.map_sizes)
        self.live = {name: dict(state.entries.get(name, {})) for name in ENTRY_MAPS}
        self.live[LUTS] = dict(state.luts)
        self.staged = {}
        self.staged_sizes = {}
        self.table_size = None
        self.load_balancer = state.load_balancer
        self.node = state.node
        self.sysctls = dict(state.sysctls)
        self.neighbours = set(state.neighbours)
        self.programs = dict(state.programs)

    def state(self):
        assert not self.staged, "a staged map was never put into service"
        return KernelState(
            map_sizes=dict(self.sizes),
            entries={name: dict(self.live[name]) for name in ENTRY_MAPS} if self.sizes else {},
            luts=dict(self.live[LUTS]),
            load_balancer=self.load_balancer,
            node=self.node,
            sysctls=dict(self.sysctls),
            neighbours=frozenset(self.neighbours),
            programs=dict(self.programs),
        )

    def run(self, operations, want, protected=()):
        """Execute; frontends in `protected` must be there at every moment, and all that `want` has must be served."""
        self.doomed = {(each.map, each.key) for each in operations if isinstance(each, op.DeleteEntry)}
        self.reachable = reachable(self.live), reachable({**want.entries, LUTS: want.luts})
        self.crowded = len({*self.live[SERVICES], *want.entries[SERVICES]}) > want.map_sizes[SERVICES]
        for operation in operations:
            getattr(self, type(operation).__name__)(operation)
            if self.load_balancer is not None:
                self.check(want, protected)

    def PutNode(self, operation):  # noqa: N802
        self.node = operation.programs

    def RemoveNode(self, operation):  # noqa: N802
        self.node = None

    def check(self, want, protected):
        """What packets rely on, of the maps that are in service."""
        for key in protected:
            assert key in self.live[SERVICES]
            assert key[:16] in self.live[ADDRESSES]
        for key, value in self.live[SERVICES].items():
            service = ServiceValue.from_buffer_copy(value)
            wanted = ServiceValue.from_buffer_copy(want.entries[SERVICES].get(key, bytes(8)))
            # a smaller map may have no place for an id, which then changes with the swap
            if service.backend_count and wanted.backend_count and service.lut_id < want.map_sizes[LUTS]:
                for number in set(memoryview(self.live[LUTS][service.lut_id]).cast("I")):
                    if number >= want.map_sizes[BACKENDS]:
                        continue
                    backend = BackendValue.from_buffer_copy(self.live[BACKENDS][struct.pack("=I", number)])
                    assert backend.lut_id == service.lut_id
        for key, backends in reachable(self.live).items():
            assert backends <= self.reachable[0].get(key, set()) | self.reachable[1].get(key, set())
        for key in self.live[ADDRESSES]:
            used = any(frontend[:16] == key for frontend in self.live[SERVICES])
            # Between the swap and what follows it, a staged map may have no frontend of a VIP yet that stays one.
            stays = all(any(frontend[:16] == key for frontend in each) for each in self.reachable)
            assert used or stays or self.crowded, "a VIP that swallows everything"

    def _map(self, name):
        return self.staged.get(name, self.live[name])

    def _size(self, name):
        return self.staged_sizes.get(name, self.sizes.get(name))

    def PrepareMaps(self, operation):  # noqa: N802
        self.table_size = operation.table_size
        for name, size in operation.sizes.items():
            old_tables = {len(each) for each in self.live[LUTS].values()} - {4 * operation.table_size}
            if self.sizes.get(name) == size and not (name == LUTS and old_tables) and name not in operation.replaced:
                continue
            self.staged_sizes[name] = size
            if name == LUTS:
                self.staged[name] = {}
            elif name == BACKENDS:
                self.staged[name] = {k: v for k, v in self.live[name].items() if struct.unpack("=I", k)[0] < size}
            elif name in ENTRY_MAPS:
                # the last ones, so that a plan which counts on the first ones is found out
                kept = [(key, value) for key, value in self.live[name].items() if (name, key) not in self.doomed]
                self.staged[name] = dict(kept[-size:])

    def PutEntry(self, operation):  # noqa: N802
        entries = self._map(operation.map)
        if operation.map == BACKENDS:
            assert struct.unpack("=I", operation.key)[0] < self._size(BACKENDS)
        else:
            assert operation.key in entries or len(entries) < self._size(operation.map), "the map is full"
        entries[operation.key] = operation.value

    def DeleteEntry(self, operation):  # noqa: N802
        if operation.map == BACKENDS:
            assert struct.unpack("=I", operation.key)[0] < self._size(BACKENDS)
        self._map(operation.map).pop(operation.key, None)

    def PutLut(self, operation):  # noqa: N802
        assert 0 < operation.lut_id < self._size(LUTS)
        assert self.table_size in (None, len(operation.table) // 4)
        self._map(LUTS)[operation.lut_id] = operation.table

    def DeleteLut(self, operation):  # noqa: N802
        del self._map(LUTS)[operation.lut_id]

    def SwapLoadBalancer(self, operation):  # noqa: N802
        self.live.update(self.staged)
        self.sizes.update(self.staged_sizes)
        self.staged, self.staged_sizes = {}, {}
        self.load_balancer = LoadBalancer(operation.config, dict(operation.attachments))

    def RemoveLoadBalancer(self, operation):  # noqa: N802
        assert isinstance(operation, op.RemoveLoadBalancer)
        self.load_balancer = None
        self.sizes = {}
        self.live = {name: {} for name in (*ENTRY_MAPS, LUTS)}

    def SetSysctl(self, operation):  # noqa: N802
        self.sysctls[operation.name] = operation.value

    def AddNeighbour(self, operation):  # noqa: N802
        self.neighbours.add(operation.neighbour)

    def RemoveNeighbour(self, operation):  # noqa: N802
        self.neighbours.remove(operation.neighbour)

    def PutProgram(self, operation):  # noqa: N802
        name = operation.program.program.name
        self.programs[name] = replace(operation.program, program=replace(operation.program.program, object_path=""))

    def RemoveProgram(self, operation):  # noqa: N802
        del self.programs[operation.program.program.name]
