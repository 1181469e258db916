"""Carrying out operations: one handler each; runs of the same kind share their system calls."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence
from typing import Any, Callable, Optional, Union

from datapath.compile.layouts import BANDWIDTH_DECIDED
from datapath.kernel import bandwidth, bundle, host_bbr, load_balancer, neighbours, node, programs, qdisc, sysctl
from datapath.kernel.entries import PartialWriteError
from datapath.kernel.errors import BpfError, KernelError, RefusedError
from datapath.kernel.maps import Maps
from datapath.kernel.objects import ObjectSource
from datapath.kernel.pins import Pins
from datapath.plan import operations as ops
from datapath.plan.operations import Operation

Progress = Callable[[int, int], None]
"""Called with (operations done, operations in all) after each run of operations."""


class Executor:
    """Carries out operations in their order; stops at the first that fails."""

    def __init__(self, pins: Pins, objects: ObjectSource, maps: Maps) -> None:
        self._pins = pins
        self._objects = objects
        self._maps = maps
        self._bandwidth = bandwidth.DecidedMaps(pins, maps.writer)
        self._doomed: dict[str, set[bytes]] = {}

    def execute(self, operations: Sequence[Operation], on_progress: Optional[Progress] = None) -> None:
        """Do `operations`.

        Raises:
            KernelError: names the operation that failed; nothing behind it was done, and nothing stays staged.
        """
        load_balancer.recover(self._pins, self._maps)
        self._doomed = {}
        for operation in operations:
            if isinstance(operation, ops.DeleteEntry):
                self._doomed.setdefault(operation.map, set()).add(operation.key)
        done = 0
        try:
            for run in _runs(operations):
                self._run(run)
                done += len(run)
                if on_progress is not None:
                    on_progress(done, len(operations))
        finally:
            # Without effect after a swap, which leaves the stage empty.
            self._maps.discard()

    def _run(self, run: Sequence[Operation]) -> None:
        try:
            _HANDLERS[type(run[0])](self, run)
        except PartialWriteError as e:
            raise self._error(run[min(e.done, len(run) - 1)], e) from e
        except (OSError, RefusedError, ValueError) as e:
            raise self._error(run[0], e) from e

    def _error(self, operation: Operation, error: Exception) -> KernelError:
        number = (error.errno or 0) if isinstance(error, OSError) else 0
        log = error.log if isinstance(error, BpfError) else ""
        message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, PartialWriteError):
            message = self._write_failure(operation, number)
        elif isinstance(error, OSError) and error.filename:
            message = f"{error.filename}: {message}"
        return KernelError(operation, number, message, log)

    def _write_failure(self, operation: Operation, number: int) -> str:
        name = getattr(operation, "map", "luts_v1")
        if number != errno.E2BIG:
            return f"map {name}: {os.strerror(number)}"
        return f"map {name} is full ({self._holder(name).info(name).max_entries} entries)"

    def _holder(self, name: str) -> Union[Maps, bandwidth.DecidedMaps]:
        """Who has the map of that name."""
        return self._bandwidth if name in BANDWIDTH_DECIDED else self._maps

    # --- handlers: each gets a run of operations of one type (entries: of one map) ---

    def _prepare_maps(self, run: Sequence[ops.PrepareMaps]) -> None:
        for operation in run:
            self._maps.prepare(operation.sizes, operation.table_size, operation.replaced, self._doomed)

    def _put_entries(self, run: Sequence[ops.PutEntry]) -> None:
        name = run[0].map
        self._holder(name).put(name, [(operation.key, operation.value) for operation in run])

    def _delete_entries(self, run: Sequence[ops.DeleteEntry]) -> None:
        name = run[0].map
        self._holder(name).delete(name, [operation.key for operation in run])

    def _put_luts(self, run: Sequence[ops.PutLut]) -> None:
        histories = {operation.lut_id for operation in run if operation.keep_history}
        self._maps.put_luts([(operation.lut_id, operation.table) for operation in run], histories)

    def _delete_luts(self, run: Sequence[ops.DeleteLut]) -> None:
        self._maps.delete_luts([operation.lut_id for operation in run])

    def _swap(self, run: Sequence[ops.SwapLoadBalancer]) -> None:
        for operation in run:
            load_balancer.swap(self._pins, self._objects, self._maps, operation.config, operation.attachments)

    def _remove_load_balancer(self, _: Sequence[ops.RemoveLoadBalancer]) -> None:
        load_balancer.remove(self._pins, self._maps)

    def _put_node(self, run: Sequence[ops.PutNode]) -> None:
        for operation in run:
            wanted = operation.programs
            bundle.put(self._pins, self._objects, node.BUNDLE, wanted.config, [wanted.devices])

    def _remove_node(self, _: Sequence[ops.RemoveNode]) -> None:
        bundle.remove(self._pins, node.BUNDLE)

    def _put_bandwidth(self, run: Sequence[ops.PutBandwidth]) -> None:
        for operation in run:
            wanted = operation.programs
            places = [wanted.native, wanted.endpoints]
            bundle.put(self._pins, self._objects, bandwidth.BUNDLE, wanted.config, places)

    def _remove_bandwidth(self, _: Sequence[ops.RemoveBandwidth]) -> None:
        bundle.remove(self._pins, bandwidth.BUNDLE)

    def _put_host_bbr(self, run: Sequence[ops.PutHostBbr]) -> None:
        for operation in run:
            host_bbr.put(self._pins, self._objects, operation.config)

    def _remove_host_bbr(self, _: Sequence[ops.RemoveHostBbr]) -> None:
        host_bbr.remove(self._pins)

    def _set_qdiscs(self, run: Sequence[ops.SetQdisc]) -> None:
        for operation in run:
            if operation.text:
                qdisc.put(operation.device, operation.text)
            else:
                qdisc.remove(operation.device)

    def _set_sysctls(self, run: Sequence[ops.SetSysctl]) -> None:
        for operation in run:
            sysctl.write(operation.name, operation.value)

    def _add_neighbours(self, run: Sequence[ops.AddNeighbour]) -> None:
        neighbours.add([operation.neighbour for operation in run])

    def _remove_neighbours(self, run: Sequence[ops.RemoveNeighbour]) -> None:
        neighbours.remove([operation.neighbour for operation in run])

    def _put_programs(self, run: Sequence[ops.PutProgram]) -> None:
        for operation in run:
            programs.put(self._pins, operation.program.program)

    def _remove_programs(self, run: Sequence[ops.RemoveProgram]) -> None:
        for operation in run:
            programs.remove(self._pins, operation.program.program.name)


_HANDLERS: dict[type, Callable[[Executor, Any], None]] = {
    ops.PrepareMaps: Executor._prepare_maps,
    ops.PutEntry: Executor._put_entries,
    ops.DeleteEntry: Executor._delete_entries,
    ops.PutLut: Executor._put_luts,
    ops.DeleteLut: Executor._delete_luts,
    ops.SwapLoadBalancer: Executor._swap,
    ops.RemoveLoadBalancer: Executor._remove_load_balancer,
    ops.PutNode: Executor._put_node,
    ops.RemoveNode: Executor._remove_node,
    ops.PutBandwidth: Executor._put_bandwidth,
    ops.RemoveBandwidth: Executor._remove_bandwidth,
    ops.PutHostBbr: Executor._put_host_bbr,
    ops.RemoveHostBbr: Executor._remove_host_bbr,
    ops.SetQdisc: Executor._set_qdiscs,
    ops.SetSysctl: Executor._set_sysctls,
    ops.AddNeighbour: Executor._add_neighbours,
    ops.RemoveNeighbour: Executor._remove_neighbours,
    ops.PutProgram: Executor._put_programs,
    ops.RemoveProgram: Executor._remove_programs,
}
_BULK = (ops.PutEntry, ops.DeleteEntry, ops.PutLut, ops.DeleteLut, ops.AddNeighbour, ops.RemoveNeighbour)
"""Operations whose handlers do many by few system calls; the others run one by one, so that an error names its own."""


def _runs(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Neighbouring operations that one handler can do together, in their order."""

    def kind(numbered: tuple[int, Operation]) -> tuple[object, ...]:
        number, operation = numbered
        if isinstance(operation, _BULK):
            return type(operation), getattr(operation, "map", "")
        return type(operation), number

    grouped = itertools.groupby(enumerate(operations), key=kind)
    return [[operation for _, operation in group] for _, group in grouped]
