"""Desired state to operations: every stage but the last, which is the only one that writes.

An apply, a dry run, a verify and a reconvergence are all this; they differ in what is done with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional, Union

from datapath.compile import Compiled, CompileErrors, compile_service, compile_state, selected_devices, targets
from datapath.compile.ids import TableKey, backend_entries, pack_frontend, protocols
from datapath.compile.layouts import BACKENDS, SERVICES, pack_address
from datapath.kernel import Kernel, KernelError
from datapath.plan import Plan, plan
from datapath.plan.operations import Operation, PrepareMaps
from datapath.sources.merge import Known, merge
from datapath.spec.errors import SpecError, SpecErrors
from datapath.spec.options import effective
from datapath.state.facts import NextHop, NodeFacts
from datapath.state.kernel_state import Entries, KernelState, Neighbour, UserProgram
from datapath.state.merged import EffectiveService, MergedState
from datapath.state.model import DesiredState, IPAddress, Program, Service


@dataclass(frozen=True)
class Prepared:
    """What is wanted, what there is, and the operations between them."""

    desired: DesiredState
    merged: MergedState
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
    known: Known,
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
    merged = merge(desired, known)
    facts = replace(gather_facts(kernel, merged, attach=attach), originals=originals)
    have = kernel.read(previous.state.luts if previous is not None else {})
    inspected = {program.name: _inspect(kernel, program) for program in merged.programs}
    programs = [each for each in inspected.values() if isinstance(each, UserProgram)]
    unusable = {name: each for name, each in inspected.items() if not isinstance(each, UserProgram)}
    try:
        compiled = compile_state(merged, facts, have, kernel.build_id(), programs=programs, previous=previous)
    except CompileErrors as error:
        raise CompileErrors([*error.errors, *_refusals(unusable.values())]) from error
    for name, refusal in compiled.refused.items():
        earlier = unusable.get(name)
        unusable[name] = CompileErrors([*(earlier.errors if isinstance(earlier, SpecErrors) else ()), refusal])
    # A device that is gone took its sysctls with it.
    restored = {name: value for name, value in originals.items() if name in have.sysctls}
    want = replace(compiled.state, sysctls={**restored, **compiled.state.sysctls})
    return Prepared(desired, merged, compiled, facts, have, want, plan(want, have), unusable)


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
class Ways:
    """How backends, other load balancers and clients are reached."""

    next_hops: Mapping[IPAddress, NextHop] = field(default_factory=dict)
    """Of backends and other load balancers; without route: missing."""
    gateways: tuple[NextHop, ...] = ()
    balancers: tuple[IPAddress, ...] = ()
    """The other load balancers."""

    def neighbours(self) -> frozenset[Neighbour]:
        """What is to be kept resolved for them."""
        return _neighbours([*self.next_hops.values(), *self.gateways])


@dataclass(frozen=True)
class Partial:
    """What a change of some services' backends asks of the kernel, for those only."""

    compiled: Compiled
    """The whole state, those services brought up to date."""
    ways: Ways
    entries: Mapping[str, Entries]
    """Map name -> the services' own entries."""
    operations: Sequence[Operation]


def prepare_services(
    kernel: Kernel,
    compiled: Compiled,
    services: Sequence[EffectiveService],
    ways: Ways,
    look: Callable[[Iterable[IPAddress]], Mapping[IPAddress, NextHop]],
) -> Optional[Partial]:
    """As `prepare`, for other backends or health of some services of `compiled`: system calls for them alone.

    Their map entries are read from the kernel; their tables, which are dear to read, are taken to be those of
    `compiled`. `look` finds next hops. None where what changed reaches further than these services: there is no
    room, or no way, or a device that nothing has used so far, or ids that another service has. That is for `prepare`.
    """
    new = compiled
    try:
        for service in services:
            new = compile_service(new, service)
    except CompileErrors:
        return None
    names = [each.service.name for each in services]
    before, after = (_backend_addresses(state, names) for state in (compiled, new))
    new_ways = _changed_ways(new, before, after, ways, look)
    if new_ways is None:
        return None
    if new_ways is not ways:
        new = _changed_neighbours(new, ways, new_ways, before | after)
    keys, luts = _places([(state, state.services[name]) for state in (compiled, new) for name in names])
    want, written = (_part(state, keys, luts) for state in (new.state, compiled.state))
    have = replace(written, entries={name: kernel.read_entries(name, sorted(chosen)) for name, chosen in keys.items()})
    operations = plan(want, have).operations
    if any(isinstance(each, PrepareMaps) for each in operations):
        # A map that is replaced has to be filled with everything.
        return None
    return Partial(new, new_ways, want.entries, operations)


def _backend_addresses(compiled: Compiled, names: Iterable[str]) -> set[IPAddress]:
    """Of the backends of services."""
    return {backend.address for name in names for backend in compiled.services[name].backends}


def _changed_ways(
    new: Compiled,
    before: set[IPAddress],
    after: set[IPAddress],
    ways: Ways,
    look: Callable[[Iterable[IPAddress]], Mapping[IPAddress, NextHop]],
) -> Optional[Ways]:
    """`ways` with those to backends `after` the change, without those to backends that nobody has any more."""
    added, gone = {each for each in after - before if each not in ways.next_hops}, before - after
    if not added and not gone:
        return ways
    found = look(added)
    devices = {hop.device for hop in ways.next_hops.values()} - {"lo"}
    if any(address not in found or found[address].device not in devices for address in added):
        return None
    if gone:
        used = {key.address for key in new.ids.backends}
        gone = {each for each in gone if pack_address(each) not in used and each not in ways.balancers}
    # There may be thousands: a copy, in which only these are touched.
    next_hops = dict(ways.next_hops)
    for address in gone:
        next_hops.pop(address, None)
    next_hops.update(found)
    return replace(ways, next_hops=next_hops)


def _changed_neighbours(compiled: Compiled, old: Ways, new: Ways, addresses: Iterable[IPAddress]) -> Compiled:
    """`compiled` with the neighbours that the ways to `addresses` take, where those have come or gone."""
    before, after = (
        _neighbours(ways.next_hops[each] for each in addresses if each in ways.next_hops) for ways in (old, new)
    )
    # Of what is left, only all ways tell whether somebody else needs it still.
    left = before - after - _neighbours(new.gateways)
    neighbours = new.neighbours() if left else compiled.state.neighbours | after
    return replace(compiled, state=replace(compiled.state, neighbours=neighbours))


def _neighbours(hops: Iterable[NextHop]) -> frozenset[Neighbour]:
    return frozenset(Neighbour(hop.device, hop.address) for hop in hops if hop.device != "lo")


def _places(services: Iterable[tuple[Compiled, Service]]) -> tuple[Mapping[str, set[bytes]], set[int]]:
    """Where the state of these services is: map name -> keys, and their tables' ids."""
    keys: dict[str, set[bytes]] = {SERVICES: set(), BACKENDS: set()}
    luts: set[int] = set()
    for compiled, service in services:
        keys[SERVICES].update(pack_frontend(frontend) for frontend in service.frontends)
        keys[BACKENDS].update(backend_entries(compiled.ids, service))
        luts.update(compiled.ids.tables[TableKey(service.name, protocol)] for protocol in protocols(service))
    return keys, luts


def _part(state: KernelState, keys: Mapping[str, set[bytes]], luts: Iterable[int]) -> KernelState:
    """`state` without all other entries and tables."""
    return KernelState(
        map_sizes=state.map_sizes,
        entries={
            name: {key: state.entries[name][key] for key in chosen if key in state.entries[name]}
            for name, chosen in keys.items()
        },
        luts={lut_id: state.luts[lut_id] for lut_id in luts if lut_id in state.luts},
        load_balancer=state.load_balancer,
        neighbours=state.neighbours,
    )
