"""Rounds: in each, every program is measured once, so that what disturbs the machine disturbs all of them.

A program's time is net of the wrapper's: of the difference to a bare `XDP_TX` behind the same wrapper. A program that
moves the frame's head makes the wrapper move it back; half of what a program costs that only moves the head is that.
"""

import statistics
from dataclasses import dataclass, field, replace

from bench.wrapper import Order

XDP_TX, XDP_REDIRECT = 3, 4


@dataclass(frozen=True)
class Target:
    """A program under measurement."""

    name: str
    program: int
    """File descriptor."""
    floor: bool = False
    """Whether it gets the case's frames for floors."""
    moves_head: bool = False
    warms: int = 0
    """The program that brings flows up to date before a sample, where it is another one."""


@dataclass
class Result:
    """Samples of one program in one case, in nanoseconds of a run."""

    target: Target
    samples: list[float] = field(default_factory=list)
    net: list[float] = field(default_factory=list)
    """Less the wrapper's share, each by that of its own round."""
    base: list[float] = field(default_factory=list)

    @property
    def minimum(self):
        """The best of the program less the best of the wrapper: what it takes when nothing is in the way."""
        return min(self.samples) - min(self.base)

    @property
    def median(self):
        return statistics.median(self.net)

    @property
    def spread(self):
        """Half of all rounds lie within this many nanoseconds."""
        if len(self.net) < 2:
            return 0.0
        lower, _, upper = statistics.quantiles(self.net, n=4)
        return upper - lower


class OutcomeError(AssertionError):
    """A case did not take the way that it is named after."""


def check_outcome(case, before, after, packets):
    """So many packets have to be counted as `case.outcome`; name -> packets before and after, else OutcomeError."""
    other = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
    expected = other.pop(case.outcome, 0)
    # The node's own devices say a word now and then (multicast listener reports).
    if expected < packets * 0.999:
        raise OutcomeError(f"{case.name}: {expected} of {packets} packets are {case.outcome}; others: {other}")


class Bench:
    """Measures cases on a node."""

    def __init__(self, node, wrapper, floors, effort):
        self.node = node
        self.wrapper = wrapper
        self.tx, self.shift, self.slb = (floors[name] for name in ("tx", "shift", "slb"))
        self.rounds = effort.rounds
        self.repeat = effort.repeat
        self.thorough = effort.thorough

    def push(self, traffic):
        """The frame that the load balancer makes of one packet."""
        self.wrapper.choose(self.node.program)
        return self.wrapper.run(replace(traffic, flows=1, order=Order.SEQUENTIAL), 1)[1]

    def measure(self, case, targets):
        """Results of `targets` in a case, in their order, behind that of `tx`."""
        everything = [self.tx, self.shift, *targets] if any(t.moves_head for t in targets) else [self.tx, *targets]
        results = {target.name: Result(target) for target in everything}
        self._open(case)
        for _ in range(self.rounds):
            took = {target.name: self._sample(case, target) for target in everything}
            for name, result in results.items():
                base = took["tx"]
                if result.target.moves_head:
                    base += (took["shift"] - took["tx"]) / 2
                result.samples.append(took[name])
                result.base.append(base)
                result.net.append(took[name] - base)
        return [result for name, result in results.items() if name not in ("tx", "shift")]

    def _open(self, case):
        """Begin the case's flows, or fill the table of flows: new ones then have to displace old ones."""
        self.wrapper.choose(self.node.program)
        if case.opening is not None:
            self.wrapper.run(case.opening, case.opening.flows)
        if case.traffic.order is Order.FRESH and self.thorough:
            self.wrapper.run(case.traffic, self.node.flow_entries)

    def _sample(self, case, target):
        traffic = case.floor if target.floor else case.traffic
        if traffic.order is not Order.FRESH:
            # Stamps are brought up to date and caches filled: as they are while traffic flows.
            self.wrapper.choose(target.warms or target.program)
            self.wrapper.run(replace(traffic, order=Order.SEQUENTIAL), max(traffic.flows, 1000))
        self.wrapper.choose(target.program)
        before = self.node.outcomes() if target.program == self.node.program else {}
        verdict, _, took = self.wrapper.run(traffic, self.repeat)
        if target.program == self.node.program:
            check_outcome(case, before, self.node.outcomes(), self.repeat)
        elif verdict not in (XDP_TX, XDP_REDIRECT):
            raise OutcomeError(f"{case.name}: {target.name} ended with verdict {verdict}")
        return took
