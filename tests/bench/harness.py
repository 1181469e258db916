"""The whole run: a node, its cases, the executor's work; what came out as one document."""

import itertools
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench import (
    cases,
    executor,
    figures,
    floors,
    hooks,
    live,
    machine,
    measure,
    node,
    report,
    steps,
    variants,
    wire,
)
from bench.wrapper import Wrapper


@dataclass(frozen=True)
class Effort:
    """How long to look."""

    rounds: int
    repeat: int
    """Packets of a sample."""
    services: int
    executor_rounds: int
    thorough: bool = True
    """Also what each step costs, and new flows in a table that is full."""


FULL = Effort(rounds=15, repeat=100_000, services=500, executor_rounds=15)
SHORT = Effort(rounds=3, repeat=20_000, services=20, executor_rounds=2, thorough=False)
STEPS_KNOWN = (
    "IPv4 TCP, established, one flow",
    "IPv6 TCP, established, one flow",
    "IPv4 TCP, established, 128k flows at random",
)
STEPS_NEW = ("IPv4 TCP, always a new flow",)
"""Cases that are also measured step by step."""


def all_cases(one, bench):
    """In an order in which none spoils the flows of the next."""
    if one.mode.dispatch:
        return cases.direct(one.mode.name, one.devices)
    return itertools.chain(
        cases.not_a_vip(one.devices),
        cases.replies(one.devices, bench.push),
        cases.established(one.devices),
        cases.fresh(one.devices),
    )


def run(effort, cpu, tell=print):
    """The report; what is measured runs on one CPU, and the process goes back to all of them."""
    everywhere = os.sched_getaffinity(0)
    busy = machine.Busy()
    os.sched_setaffinity(0, {max(everywhere) if cpu is None else cpu})
    packets, stepwise, others, found = [], [], [], []
    travelling = Travelling(effort, everywhere, tell)
    try:
        for mode in (node.TRANSLATING, *node.DIRECT):
            with node.converged(mode) as one, Wrapper() as wrapper, floors.loaded() as yardsticks:
                bench = measure.Bench(one, wrapper, yardsticks, effort)
                single = (case for case in all_cases(one, bench) if case.traffic.flows == 1)
                found.append(figures.measured(one, wrapper, single))
                rows, walked = _packets(bench, yardsticks, effort, tell)
                packets += rows
                stepwise += walked
                if effort.thorough and mode is node.TRANSLATING:
                    others = list(variants.measured(bench, one.devices["in0"]))
                travelling.measure(one, yardsticks)
        os.sched_setaffinity(0, everywhere)
        tell("the executor's work")
        durations = executor.measured(effort.services, effort.executor_rounds)
    finally:
        os.sched_setaffinity(0, everywhere)
    return {
        "machine": machine.facts(),
        "busy": busy.sentence(),
        "effort": vars(effort),
        "packets": list(report.packet_rows(packets)),
        "steps": list(report.step_rows(stepwise)),
        "variants": others,
        "hooks": list(report.hook_rows(travelling.hooks)),
        "wire": list(report.wire_rows(travelling.wire, wire.GOALS)),
        "left_out": travelling.left_out,
        "executor": list(report.duration_rows(durations)),
        "figures": figures.together(found),
    }


class Travelling:
    """What takes frames that travel: tc beside XDP, and the wire."""

    def __init__(self, effort, everywhere, tell):
        self.effort = effort
        self.everywhere = everywhere
        self.tell = tell
        self.hooks, self.wire = [], []
        self.left_out = []
        """Sentences: what this machine cannot show."""

    def measure(self, one, yardsticks):
        """What concerns a mode; `one` is its node at XDP."""
        with ExitStack() as stack:
            generator = stack.enter_context(live.Generator())
            nothing, slb = (
                hooks.yardstick(each, stack.enter_context(wire.yardstick(each)))
                for each in (yardsticks["tx"], yardsticks["slb"])
            )
            try:
                live.require(generator, nothing.forwarder)
            except live.MissingError as e:
                self._leave_out(f"tc and wire: {e}")
                return
            other = stack.enter_context(node.converged(one.mode.at_tc()))
            self.tell(f"{one.mode.name}, tc beside XDP")
            places = (slb, hooks.load_balancer(one), hooks.load_balancer(other))
            self.hooks += hooks.Hooks(generator, nothing, places, self.effort).measured(one.mode)
            if one.mode.dispatch == wire.DISPATCH:
                self._wire(generator, [each.forwarder for each in (nothing, *places)])

    def _wire(self, generator, present):
        (cpu,) = os.sched_getaffinity(0)
        with wire.peers(self._leave_out) as others, ExitStack() as stack:
            forwarders = [*present, *others]
            for each in forwarders:
                stack.enter_context(generator.sink(each))
            self.tell(wire.ONE_CORE)
            self.wire += wire.Rounds(generator, forwarders, self.effort).measured(wire.ONE_CORE)
            self.tell(wire.OWN_CORE)
            # On a busy machine the two cores wait for each other, and many flows take long.
            kinds, effort = (
                (wire.FLOWS, self.effort) if self.effort.thorough else ((1,), replace(self.effort, rounds=1))
            )
            try:
                with wire.own_core(forwarders, cpu, self.everywhere - {cpu}) as clocks:
                    self.wire += wire.Rounds(generator, forwarders, effort).measured(wire.OWN_CORE, kinds, clocks)
            except live.MissingError as e:
                self._leave_out(str(e))

    def _leave_out(self, why):
        if why not in self.left_out:
            self.left_out.append(why)


def _packets(bench, yardsticks, effort, tell):
    packets, stepwise, one = [], [], bench.node
    yards = [yardsticks[name] for name in report.FLOORS]
    product = measure.Target(report.PRODUCT, one.program)
    with ExitStack() as stack:
        walked = {}
        if effort.thorough and one.mode is node.TRANSLATING:
            known, new = (stack.enter_context(steps.loaded(one, fresh)) for fresh in (False, True))
            walked = {**dict.fromkeys(STEPS_KNOWN, known), **dict.fromkeys(STEPS_NEW, new)}
        for case in all_cases(one, bench):
            tell(case.name)
            packets.append((case, bench.measure(case, [*yards, replace(product, moves_head=case.moves_head)])))
            if case.name in walked:
                steps.check(bench, case, walked[case.name])
                stepwise.append((case, bench.measure(case, walked[case.name])))
    return packets, stepwise
