"""Desired state to operations: every stage but the last, which is the only one that writes.

An apply, a dry run, a verify and a reconvergence are all this; they differ in what is done with the result.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional, Union

from datapath.compile import Compiled, CompileErrors, compile_service, compile_state, selected_devices, targets
from datapath.compile.ids import TableKey, pack_frontend, protocols
from datapath.compile.layouts import BACKENDS, SERVICES
from datapath.kernel import Kernel, KernelError
from datapath.plan import Plan, plan
from datapath.plan.operations import Operation
from datapath.sources.merge import Health, merge, merge_service
from datapath.spec.errors import SpecError, SpecErrors
from datapath.spec.options import effective
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import Entries, KernelState, UserProgram
from datapath.state.merged import MergedState
from datapath.state.model import DesiredState, Program, Service


@dataclass(frozen=True)
class Prepared:
    """What is wanted, what there is, and the operations between them."""

    desired: DesiredState
    compiled: Compiled
    facts: NodeFacts
    have: KernelState
    want: KernelState
    plan: Plan
    unusable: Mapping[str, Union[SpecErrors, KernelError]]
    """Name -> why that program of a user's, which stays as it is, cannot be what is desired."""

    def require_programs(self, names: Iterable[str]) -> None:
        """Raise for programs that cannot be used: CompileErrors with all that are refused, or else KernelError."""
        wrong = [self.unusable[name] for name in names if name in self.unusable]
        refusals = _refusals(wrong)
        if refusals:
            raise CompileErrors(refusals)
        if wrong:
            raise wrong[0]


def prepare(
    kernel: Kernel,
    desired: DesiredState,
    health: Health,
    originals: Mapping[str, str],
    *,
    attach: bool,
    previous: Optional[Compiled] = None,
) -> Prepared:
    """Compile and plan without changing anything.

    `attach` allows to find out about native XDP by attaching a program that passes everything for a moment, where
    the driver does not tell; a dry run must not. `originals` are the sysctls that the executor once changed: those
    that nothing wants any more go back to them. Raises CompileErrors, KernelError; not for users' programs alone.
    """
    merged = merge(desired, health)
    facts = replace(gather_facts(kernel, merged, attach=attach), originals=originals)
    have = kernel.read()
    inspected = {program.name: _inspect(kernel, program) for program in merged.programs}
    programs = [each for each in inspected.values() if isinstance(each, UserProgram)]
    unusable = {name: each for name, each in inspected.items() if not isinstance(each, UserProgram)}
    try:
        compiled = compile_state(merged, facts, have, kernel.build_id(), programs=programs, previous=previous)
    except CompileErrors as error:
        raise CompileErrors([*error.errors, *_refusals(unusable.values())]) from error
    for name, refusal in compiled.refused.items():
        known = unusable.get(name)
        unusable[name] = CompileErrors([*(known.errors if isinstance(known, SpecErrors) else ()), refusal])
    # A device that is gone took its sysctls with it.
    restored = {name: value for name, value in originals.items() if name in have.sysctls}
    want = replace(compiled.state, sysctls={**restored, **compiled.state.sysctls})
    return Prepared(desired, compiled, facts, have, want, plan(want, have), unusable)


def _inspect(kernel: Kernel, program: Program) -> Union[UserProgram, SpecErrors, KernelError]:
    """What the program is, or why it cannot be loaded."""
    try:
        return kernel.inspect_program(program)
    except (SpecErrors, KernelError) as error:
        return error


def _refusals(unusable: Iterable[Exception]) -> list[SpecError]:
    return [error for each in unusable if isinstance(each, SpecErrors) for error in each.errors]


def gather_facts(kernel: Kernel, merged: MergedState, *, attach: bool) -> NodeFacts:
    """Facts of all devices; those that would be attached to are probed where that is needed and allowed."""
    facts = kernel.facts(None, targets(merged), probe_native=True)
    if not attach or effective(merged.options)["bpf-lb-acceleration"] in ("testing-only", "disabled"):
        return facts
    # What carries a program has shown what it can, and is not disturbed.
    untried = [name for name in selected_devices(merged, facts) if not facts.devices[name].xdp_mode]
    if not untried:
        return facts
    probed = kernel.facts(untried, (), probe_native=True)
    return replace(facts, devices={**facts.devices, **probed.devices})


@dataclass(frozen=True)
class Partial:
    """What a change of health asks of the kernel, for the services concerned only."""

    compiled: Compiled
    """The whole state, those services brought up to date."""
    entries: Mapping[str, Entries]
    """Map name -> the services' own entries."""
    operations: Sequence[Operation]


def prepare_services(kernel: Kernel, compiled: Compiled, services: Sequence[Service], health: Health) -> Partial:
    """As `prepare`, for new health results of some services of `compiled`: system calls for them alone.

    Their map entries are read from the kernel; their tables, which are dear to read, are taken to be those of
    `compiled`.
    """
    new = compiled
    for service in services:
        new = compile_service(new, merge_service(service, health))
    keys, luts = _places(new, services)
    want, have = (_part(state, keys, luts) for state in (new.state, compiled.state))
    read = {name: kernel.read_entries(name, list(entries)) for name, entries in want.entries.items()}
    return Partial(new, want.entries, plan(want, replace(have, entries=read)).operations)


def _places(compiled: Compiled, services: Iterable[Service]) -> tuple[Mapping[str, list[bytes]], list[int]]:
    """Where the state of these services is: map name -> keys, and their tables' ids."""
    keys: dict[str, list[bytes]] = {SERVICES: [], BACKENDS: []}
    luts = []
    for service in services:
        keys[SERVICES] += [pack_frontend(frontend) for frontend in service.frontends]
        for protocol in protocols(service):
            lut_id = compiled.ids.tables[TableKey(service.name, protocol)]
            luts.append(lut_id)
            keys[BACKENDS] += [struct.pack("=I", compiled.ids.backend(lut_id, backend)) for backend in service.backends]
    return keys, luts


def _part(state: KernelState, keys: Mapping[str, list[bytes]], luts: Iterable[int]) -> KernelState:
    """`state` without all other entries and tables."""
    return KernelState(
        map_sizes=state.map_sizes,
        entries={name: {key: state.entries[name][key] for key in chosen} for name, chosen in keys.items()},
        luts={lut_id: state.luts[lut_id] for lut_id in luts if lut_id in state.luts},
        load_balancer=state.load_balancer,
    )
