"""Merged state to kernel state (pure): what the node's kernel should hold, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Optional

from datapath.compile import bandwidth, devices, node
from datapath.compile.balancer import Balancer, targets
from datapath.compile.compiled import Compiled
from datapath.compile.errors import CompileErrors, Problems
from datapath.compile.ids import backend_entries, reassign
from datapath.compile.layouts import BACKENDS, SERVICES
from datapath.compile.services import Parts, compile_parts
from datapath.spec.errors import SpecError
from datapath.spec.option import Group
from datapath.spec.options import BY_KEY, effective
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import KernelState, UserProgram
from datapath.state.merged import EffectiveService, MergedState

__all__ = [
    "CompileErrors",
    "Compiled",
    "compile_service",
    "compile_state",
    "selected_devices",
    "targets",
    "wants_load_balancer",
]


_OTHERS = (Group.EXECUTOR, Group.BACKEND, Group.BANDWIDTH, Group.CLUSTER_MESH)
"""Options that ask for no load balancer."""


def wants_load_balancer(merged: MergedState) -> bool:
    """Whether this node is to balance load: it has services, or options of the load balancer are set.

    The options of a backend, or of a node with endpoints, may be those of the whole fleet, so there only services
    count. Devices by themselves say where something would be, not what.
    """
    if merged.services or merged.endpoints or node.wanted(merged) or bandwidth.wanted(merged):
        return bool(merged.services)
    return any(BY_KEY[key].group not in _OTHERS for key in merged.options if key != "devices")


def selected_devices(merged: MergedState, facts: NodeFacts) -> tuple[str, ...]:
    """Devices that would be attached to, of those in `facts`; for asking about them in more detail."""
    if not wants_load_balancer(merged):
        return ()
    problems = Problems()
    names = devices.select(effective(merged.options), facts, targets(merged), problems)
    return tuple(devices.carriers(names, facts, problems))


def compile_state(
    merged: MergedState,
    facts: NodeFacts,
    have: KernelState,
    build_id: bytes,
    *,
    programs: Iterable[UserProgram] = (),
    previous: Optional[Compiled] = None,
) -> Compiled:
    """What the kernel should hold for `merged`.

    `have` gives the ids in use and the source addresses. `build_id` are 16 bytes that tell versions of the object
    apart. `programs` are those of `merged.programs` that the kernel stage could inspect. One that it could not, or
    that is refused here (`Compiled.refused`), stays as it is in `have`: it takes nothing else down with it.
    `previous` saves making tables again that it has. Raises `CompileErrors` with every reason why not.
    """
    problems = Problems()
    compiled = Compiled(KernelState())
    balanced: Mapping[str, str] = {}
    if wants_load_balancer(merged):
        compiled = Balancer(merged, facts, have, problems).compile(build_id, previous)
        if compiled.state.load_balancer is not None:
            balanced = compiled.state.load_balancer.attachments
    if node.wanted(merged):
        compiled = _with_node(compiled, merged, facts, build_id, problems)
    if bandwidth.wanted(merged):
        compiled = _with_bandwidth(compiled, bandwidth.compile_bandwidth(merged, facts, have, build_id, problems))
        problems.raise_if_any()
    usable = {each.program.name: each for each in programs}
    refused: dict[str, SpecError] = {}
    for program in merged.programs:
        error = devices.program_error(program, facts, balanced)
        if error is not None:
            refused[program.name] = error
            usable.pop(program.name, None)
    wanted = {each.name: usable.get(each.name, have.programs.get(each.name)) for each in merged.programs}
    state = replace(
        compiled.state,
        programs=MappingProxyType({name: program for name, program in wanted.items() if program is not None}),
    )
    warnings = tuple(dict.fromkeys(problems.warnings))
    return replace(compiled, state=state, warnings=warnings, refused=MappingProxyType(refused))


def _with_node(
    compiled: Compiled, merged: MergedState, facts: NodeFacts, build_id: bytes, problems: Problems
) -> Compiled:
    programs, sysctls = node.compile_node(merged, facts, build_id, problems)
    return replace(
        compiled, state=replace(compiled.state, node=programs, sysctls={**compiled.state.sysctls, **sysctls})
    )


def _with_bandwidth(compiled: Compiled, added: Optional[bandwidth.Bandwidth]) -> Compiled:
    if added is None:
        return compiled
    state = replace(
        compiled.state,
        bandwidth=added.programs,
        host_bbr=added.host_bbr,
        entries={**compiled.state.entries, **added.entries},
        qdiscs=added.qdiscs,
        sysctls={**compiled.state.sysctls, **added.sysctls},
    )
    return replace(compiled, state=state, endpoints=added.names)


def compile_service(compiled: Compiled, service: EffectiveService) -> Compiled:
    """`compiled` with one service's backends brought up to date, as after a change of health or of another cluster.

    The service's frontends must be those that it was compiled with. Neighbours stay as they are. Raises CompileErrors
    where there is no room.
    """
    if compiled.settings is None:
        raise ValueError("no load balancer was compiled")
    problems = Problems()
    before = compiled.services[service.service.name]
    ids = reassign(compiled.ids, before, service.service, compiled.state.map_sizes[BACKENDS], problems)
    problems.raise_if_any()
    parts = Parts()
    compile_parts(parts, service, ids, compiled.settings, compiled.tables)
    old = compiled.state.entries
    backends = {**old[BACKENDS], **parts.backends}
    for key in backend_entries(compiled.ids, before):
        if key not in parts.backends:
            del backends[key]
    entries = {**old, SERVICES: {**old[SERVICES], **parts.services}, BACKENDS: backends}
    own = {lut_id for key, lut_id in compiled.ids.tables.items() if key.service == service.service.name}
    tables = {lut_id: table for lut_id, table in compiled.tables.items() if lut_id not in own}
    tables.update(parts.tables)
    luts = {lut_id: table.slots for lut_id, table in tables.items()}
    services = {**compiled.services, service.service.name: service.service}
    state = replace(compiled.state, entries=entries, luts=luts)
    return replace(compiled, state=state, ids=ids, services=services, tables=tables)
