"""The whole run: a node, its cases, the executor's work; what came out as one document."""

import itertools
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench import cases, executor, figures, floors, machine, measure, node, report, steps, variants
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
        "executor": list(report.duration_rows(durations)),
        "figures": figures.together(found),
    }


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
