"""Operations as people read them: rows for the command line, texts for a diff."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import cached_property
from types import MappingProxyType
from typing import Any, Optional

from datapath.compile.config import read_config
from datapath.compile.layouts import (
    ADDRESSES,
    BACKENDS,
    BANDWIDTH_ENDPOINTS,
    BANDWIDTH_NATIVES,
    BANDWIDTH_RATES,
    LUTS,
    PEERS,
    SERVICES,
    VLANS_IN,
    VLANS_OUT,
    BbrConfig,
    Config,
    unpack_address,
)
from datapath.compile.maglev import shares
from datapath.plan import operations as op
from datapath.plan.diff import Plan
from datapath.plan.labels import Labels, device_index, frontend, rate, vlan
from datapath.state.kernel_state import BandwidthPrograms, KernelState, Neighbour, NodePrograms, UserProgram
from datapath.state.model import Hook

Row = dict[str, Any]
"""`action` (create, update, delete, attach, replace, detach, set), `target`, `key`, `before`, `after`, `summary`."""

_SHOWN_BACKENDS = 16


def rows(plan: Plan, names: Mapping[int, str], endpoints: Mapping[int, str] = MappingProxyType({})) -> Iterator[Row]:
    """What the plan does, in order; one operation may be several rows (a program on three devices), never none.

    `names` maps LUT ids to labels (`Compiled.names`), `endpoints` numbers to endpoints (`Compiled.endpoints`).
    """
    describer = _Describer(plan, Labels(plan.want, plan.have, names, endpoints))
    for operation in plan.operations:
        yield from describer.rows(operation)


def diff(described: Iterable[Row]) -> dict[str, str]:
    """`before` and `after` as texts, a line for each thing that differs, in the same order on both sides."""
    sides: dict[str, list[str]] = {"before": [], "after": []}
    for row in sorted(described, key=lambda row: (row["target"], row["key"] or "")):
        name = f"{row['target']} {row['key']}" if row["key"] else row["target"]
        for side, lines in sides.items():
            if row[side] is not None:
                lines.append(f"{name}: {row[side]}\n")
    return {side: "".join(lines) for side, lines in sides.items()}


def _row(target: str, key: Optional[str], before: Any, after: Any, action: Optional[str] = None) -> Row:
    action = action or ("create" if before is None else "delete" if after is None else "update")
    name = f"{target} {key}" if key else target
    if before is None or after is None:
        what = before if after is None else after
        summary = f"{action} {name}: {what}"
    else:
        summary = f"{action} {name}: {before} -> {after}" if before != after else f"{action} {name}: {after}"
    return {"action": action, "target": target, "key": key, "before": before, "after": after, "summary": summary}


class _Describer:
    def __init__(self, plan: Plan, labels: Labels) -> None:
        self.plan = plan
        self.want = plan.want
        self.have = plan.have
        self.labels = labels

    def rows(self, operation: op.Operation) -> Iterator[Row]:
        if isinstance(operation, op.PrepareMaps):
            yield from self._prepare(operation)
        elif isinstance(operation, op.PutEntry):
            yield self._entry(operation.map, operation.key, operation.value)
        elif isinstance(operation, op.DeleteEntry):
            yield self._entry(operation.map, operation.key, None)
        elif isinstance(operation, op.PutLut):
            yield self._lut(operation.lut_id, operation.table)
        elif isinstance(operation, op.DeleteLut):
            yield self._lut(operation.lut_id, None)
        elif isinstance(operation, op.SwapLoadBalancer):
            yield from self._swap(operation)
        elif isinstance(operation, op.RemoveLoadBalancer):
            yield from self._remove()
        elif isinstance(operation, (op.PutNode, op.RemoveNode)):
            yield from self._node()
        elif isinstance(operation, (op.PutBandwidth, op.RemoveBandwidth)):
            yield from self._bandwidth()
        else:
            yield self._other(operation)

    def _other(self, operation: op.Operation) -> Row:
        if isinstance(operation, op.SetSysctl):
            return _row("sysctl", operation.name, self.have.sysctls.get(operation.name), operation.value, "set")
        if isinstance(operation, op.SetQdisc):
            old = self.have.qdiscs.get(operation.device)
            after = operation.text or "the kernel's default"
            return _row("qdisc", operation.device, old.text if old is not None else None, after, "set")
        if isinstance(operation, (op.PutHostBbr, op.RemoveHostBbr)):
            return self._host_bbr()
        if isinstance(operation, (op.AddNeighbour, op.RemoveNeighbour)):
            kept, added = "kept resolved", isinstance(operation, op.AddNeighbour)
            return _row("neighbour", _neighbour(operation.neighbour), *((None, kept) if added else (kept, None)))
        if isinstance(operation, op.PutProgram):
            before = self.have.programs.get(operation.program.program.name)
            return _program_row(before, operation.program)
        if isinstance(operation, op.RemoveProgram):
            return _program_row(operation.program, None)
        raise TypeError(f"no description of {type(operation).__name__}")

    def _prepare(self, operation: op.PrepareMaps) -> Iterator[Row]:
        for name, size in sorted(operation.sizes.items()):
            before = self.have.map_sizes.get(name)
            if before != size:
                yield _row("map", name, _entries(before), _entries(size))
        old, new = read_config(self.have), read_config(self.want)
        before = old.maglev_table_size if old is not None else None
        after = new.maglev_table_size if new is not None else operation.table_size
        if before != after:
            yield _row("tables of map", LUTS, _slots(before), _slots(after))

    def _entry(self, name: str, key: bytes, value: Optional[bytes]) -> Row:
        old = self.have.entries.get(name, {}).get(key)
        target = f"map {name}"
        if name == BACKENDS:
            return self._backend(target, old, value)
        label, text = self._texts.get(name, (bytes.hex, bytes.hex))
        return _row(target, label(key), *[None if each is None else text(each) for each in (old, value)])

    @cached_property
    def _texts(self) -> Mapping[str, tuple[Callable[[bytes], str], Callable[[bytes], str]]]:
        """Map -> what its keys and its values are in words."""
        return {
            SERVICES: (frontend, self.labels.service),
            ADDRESSES: (_address, lambda _: "VIP"),
            VLANS_OUT: (device_index, vlan),
            VLANS_IN: (vlan, device_index),
            PEERS: (_address, lambda value: f"next is {_address(value)}"),
            BANDWIDTH_ENDPOINTS: (device_index, self.labels.endpoint),
            BANDWIDTH_NATIVES: (device_index, lambda _: "leads out of the node"),
            BANDWIDTH_RATES: (self.labels.rate_key, rate),
        }

    def _backend(self, target: str, old: Optional[bytes], value: Optional[bytes]) -> Row:
        label = self.labels.backend_key(value or old or b"")
        states = [None if each is None else self.labels.backend_state(each) for each in (old, value)]
        if old is not None and value is not None and self.labels.backend_key(old) != label:
            states = [f"{self.labels.backend_key(old)}, {states[0]}", f"{label}, {states[1]}"]
        return _row(target, label, *states)

    def _lut(self, lut_id: int, table: Optional[bytes]) -> Row:
        old = self.have.luts.get(lut_id)
        name = self.labels.table(lut_id)
        before, after = self._table_text(old, self.have), self._table_text(table, self.want)
        row = _row(f"map {LUTS}", name, before, after)
        members = len(set(array("I", old or b"" if table is None else table)) - {0})
        row["summary"] = f"{row['action']} table of {name}: {members} backend{'' if members == 1 else 's'}"
        if old is not None and table is not None:
            row["summary"] += f", {self.plan.slots_moved.get(lut_id, 0.0):.1%} of its slots move"
        return row

    def _table_text(self, table: Optional[bytes], state: KernelState) -> Optional[str]:
        """Backends with their shares, largest first."""
        if table is None:
            return None
        found = [(-share, self.labels.backend_id(state, each)) for each, share in shares(array("I", table)).items()]
        texts = [f"{name} {-share:.2%}" for share, name in sorted(found)]
        more = len(texts) - _SHOWN_BACKENDS
        return ", ".join(texts[:_SHOWN_BACKENDS]) + (f" and {more} more" if more > 0 else "")

    def _swap(self, operation: op.SwapLoadBalancer) -> Iterator[Row]:
        loaded = self.have.load_balancer
        attached: Mapping[str, str] = loaded.attachments if loaded is not None else {}
        foreign: Mapping[str, str] = loaded.foreign if loaded is not None else {}
        yield from _config_rows(read_config(self.have), read_config(self.want))
        for device, mode in sorted(operation.attachments.items()):
            hook, before = _hook(mode), attached.get(device)
            if before is None or _hook(before) != hook:
                yield _row(hook, device, foreign.get(device) if before is None else None, _instance(mode), "attach")
            else:
                yield _row(hook, device, foreign.get(device, _instance(before)), _instance(mode), "replace")
        for device, mode in sorted(attached.items()):
            if _hook(operation.attachments.get(device, "")) != _hook(mode):
                yield _row(_hook(mode), device, _instance(mode), None, "detach")

    def _remove(self) -> Iterator[Row]:
        loaded = self.have.load_balancer
        for device, mode in sorted(loaded.attachments.items()) if loaded is not None else ():
            yield _row(_hook(mode), device, _instance(mode), None, "detach")
        for name, size in sorted(self.have.map_sizes.items()):
            yield _row("map", name, _entries(size), None)
        if loaded is not None:
            yield _row("program", "tc_lb" if "tc" in loaded.attachments.values() else "xdp_lb", "loaded", None)

    def _node(self) -> Iterator[Row]:
        old, new = self.have.node, self.want.node
        before, after = (each.devices if each is not None else frozenset() for each in (old, new))
        yield from _loaded("tc_node", old, new)
        yield from _places(_NODE, before, after, old.problems if old is not None else {})
        if not before | after:
            yield _row("program", "tc_node", "loaded" if old else None, "loaded" if new else None)

    def _bandwidth(self) -> Iterator[Row]:
        old, new = self.have.bandwidth, self.want.bandwidth
        nowhere: frozenset[str] = frozenset()
        problems = old.problems if old is not None else {}
        yield from _loaded("tc_bandwidth", old, new)
        before, after = (each.native if each is not None else nowhere for each in (old, new))
        yield from _places(_NATIVE, before, after, problems)
        before, after = (each.endpoints if each is not None else nowhere for each in (old, new))
        yield from _places(_ENDPOINT, before, after, problems)
        if (old is None) != (new is None):
            yield _row("program", "tc_bandwidth", "loaded" if old else None, "loaded" if new else None)

    def _host_bbr(self) -> Row:
        old, new = self.have.host_bbr, self.want.host_bbr
        before, after = (None if each is None else _host_bbr(each) for each in (old, new))
        action = "detach" if after is None else "attach" if before is None else "replace"
        return _row("cgroup", "sock_bbr", before, after, action)


_NODE = "tc_node, ingress and egress"
_NATIVE = "tc_bandwidth, egress"
_ENDPOINT = "tc_bandwidth, of an endpoint, ingress and egress"


def _host_bbr(config: bytes) -> str:
    if len(config) != ctypes.sizeof(BbrConfig):
        return "not at the root of cgroup v2, or another version's"
    default = bytes(BbrConfig.from_buffer_copy(config).congestion).rstrip(b"\0").decode("ascii", "replace")
    return f"BBR in place of {default} for the host's own sockets"


def _loaded(
    name: str, old: Optional[NodePrograms | BandwidthPrograms], new: Optional[NodePrograms | BandwidthPrograms]
) -> Iterator[Row]:
    if old is not None and new is not None and old.config != new.config:
        yield _row("configuration", name, old.config.hex(), new.config.hex(), "set")


def _places(what: str, before: Set[str], after: Set[str], problems: Mapping[str, str]) -> Iterator[Row]:
    """Devices that programs at tc are attached to, replaced at, and detached from."""
    for device in sorted(before | after):
        action = {(False, True): "attach", (True, True): "replace"}.get((device in before, device in after), "detach")
        was = problems.get(device, what) if device in before else None
        yield _row("tc", device, was, what if device in after else None, action)


def _hook(mode: str) -> str:
    """Where an attachment of that mode is; "" without one."""
    return "tc" if mode == "tc" else "xdp" if mode else ""


def _instance(mode: str) -> str:
    return "tc_lb, ingress" if mode == "tc" else f"xdp_lb, {mode}"


def _entries(size: Optional[int]) -> Optional[str]:
    return None if size is None else f"{size} entries"


def _slots(size: Optional[int]) -> Optional[str]:
    return None if size is None else f"{size} slots"


def _neighbour(neighbour: Neighbour) -> str:
    return f"{neighbour.address} on {neighbour.device}"


def _program_row(before: Optional[UserProgram], after: Optional[UserProgram]) -> Row:
    actions = {(False, True): "attach", (True, True): "replace", (True, False): "detach"}
    one = after or before
    hook = one.program.hook if one is not None else Hook.NONE
    action = actions[before is not None, after is not None] if hook is not Hook.NONE else None
    name = one.program.name if one is not None else None
    return _row("program", name, _program(before), _program(after), action)


def _program(user: Optional[UserProgram]) -> Optional[str]:
    if user is None:
        return None
    program = user.program
    places = {
        Hook.NONE: "not attached",
        Hook.XDP: f"xdp {program.mode} on {program.device}",
        Hook.TC: f"tc {program.direction} on {program.device}",
        Hook.CGROUP: f"cgroup {program.cgroup}",
    }
    text = f"{program.function or 'its program'}, tag {user.tag or 'unknown'}, {places[program.hook]}"
    if user.data:
        text += f", data {user.data[:12]}"
    return text + (f", pinned at {program.pin}" if program.pin else "")


def _config_rows(before: Optional[Config], after: Optional[Config]) -> Iterator[Row]:
    for field in Config._fields_:
        name = field[0]
        old, new = (None if each is None else _config_text(name, getattr(each, name)) for each in (before, after))
        if old != new:
            yield _row("configuration", name, old, new, "set")


def _config_text(name: str, value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    packed = bytes(value)
    if name == "build_id":
        return packed.hex()
    return str(unpack_address(packed)) if any(packed) else "none"


def _address(packed: bytes) -> str:
    return str(unpack_address(packed))
