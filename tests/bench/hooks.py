"""tc against XDP: how long the load balancer's program runs at either hook, on frames that come by a wire.

At tc, BPF_PROG_TEST_RUN cannot repeat an encapsulation: what a program has marked as one stays so, and is refused the
next time. So the kernel's own statistics are read while frames pass: time and number of a program's runs.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Optional

from bench import frames, live, programs, wire
from bench.measure import OutcomeError, Result, Target, check_outcome
from bench.node import Node
from bench.report import PRODUCT, PRODUCT_TC

WARM = 1000
"""Frames that go before a sample."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    device: str
    frame: bytes
    outcome: str
    """What the load balancer has to count every packet as."""


def cases(mode):
    if mode.dispatch:
        return [Case(f"{mode.name}, IPv4 UDP, one flow", "out0", frames.datagram("out0"), "request_forwarded")]
    elsewhere = frames.datagram("in0", "192.0.2.77")
    return [
        Case("SNAT, IPv4 UDP, established, one flow", "in0", frames.datagram("in0"), "request_forwarded"),
        Case("IPv4 UDP, not to a VIP: pass", "in0", elsewhere, "no_service_passed"),
    ]


@dataclass(frozen=True)
class Place:
    """A program where frames pass."""

    name: str
    forwarder: live.Forwarder
    program: int
    """File descriptor."""
    node: Optional[Node] = None
    """That of the load balancer; yardsticks have none, and get UDP to a VIP whatever the case."""

    def traffic(self, case):
        chosen = case if self.node else Case(self.name, wire.DEVICE, frames.datagram(wire.DEVICE), "")
        return self.forwarder.requests(chosen.device, chosen.frame)

    def check(self, case, before, packets):
        if self.node:
            check_outcome(case, before, self.node.outcomes(), packets)


def yardstick(target, forwarder):
    return Place(target.name, forwarder, target.program)


def load_balancer(node):
    name = PRODUCT if node.mode.hook == "xdp" else PRODUCT_TC
    return Place(name, live.Forwarder(name, node.namespace, node.peer), node.program, node)


class Hooks:
    """Measures programs beside each other and beside one that does nothing: what that takes is reading the clock."""

    def __init__(self, generator, nothing, places, effort):
        self.generator = generator
        self.nothing = nothing
        self.places = places
        self.rounds = effort.rounds
        self.frames = effort.repeat

    def measured(self, mode):
        """(case, `Result`s of the places in their order) each."""
        with ExitStack() as stack:
            for each in (self.nothing, *self.places):
                stack.enter_context(self.generator.sink(each.forwarder))
            for case in cases(mode):
                results = [Result(Target(each.name, each.program)) for each in self.places]
                for _ in range(self.rounds):
                    base = self._sample(self.nothing, case)
                    for result, each in zip(results, self.places):
                        took = self._sample(each, case)
                        result.samples.append(took)
                        result.base.append(base)
                        result.net.append(took - base)
                yield case, results

    def _sample(self, where, case):
        """Nanoseconds of one run."""
        traffic = where.traffic(case)
        self.generator.send(where.forwarder, traffic, WARM)
        counted = where.node.outcomes() if where.node else {}
        with programs.statistics():
            before = programs.runs(where.program)
            sample = self.generator.send(where.forwarder, traffic, self.frames)
            runs, spent = (now - then for now, then in zip(programs.runs(where.program), before))
        where.check(case, counted, sample.sent)
        if not 0.999 < runs / sample.sent < 1.001:
            raise OutcomeError(f"{case.name}: {runs} runs for {sample.sent} packets of {where.name}")
        return spent / runs
