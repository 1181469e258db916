"""Two endpoints at once, one of them flooded, while the other's rate changes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bandwidth.traffic import LEAST, MOST, ask, iperf, rate, reaching, requests, retransmitted, tcp_rate

BEFORE, AFTER, FLOODED = 5_000_000, 10_000_000, 2_000_000
PHASE = 6
"""Seconds before and after the change."""
STEP = 0.2
SETTLED = 1.0
"""Seconds after which flows that begin are no longer counted as beginning, and a change has to be seen."""
SEEN = pytest.approx(1, rel=0.2)
"""What a change counts as seen at: of the new rate, right after SETTLED."""


class Run:
    """What was sampled, and what happened meanwhile."""

    def __init__(self, node, pool, asked):
        self.node, self.pool, self.requests = node, pool, asked
        self.samples = {name: [] for name in node.received}
        self.asked = self.changed = self.changing = None
        """When the change was asked for, and when that had been answered."""
        self.retransmitted = self.dropped = None

    def serve(self, rate):
        """With routing by the programs: a queue that a full window fills would show a change as late as it is long."""
        self.node.serve({"db": str(rate), "web": str(FLOODED)}, enable_host_legacy_routing=False)

    def goes_on(self):
        """Take samples, change the rate when it is time; whether the time after that is not over yet."""
        now = time.monotonic()
        for name, samples in self.samples.items():
            if not samples or now - samples[-1].when >= STEP:
                samples.append(self.node.received[name].read())
        if now < self.began + PHASE:
            return True
        if self.changing is None:
            self.changing = self.pool.submit(self.change)
        return not self.changing.done() or now < self.changing.result() + PHASE

    def change(self):
        self.asked = time.monotonic()
        self.serve(AFTER)
        self.changed = time.monotonic()
        return self.changed

    def between(self, name, begin, end):
        inside = [each for each in self.samples[name] if begin <= each.when <= end]
        return inside[0], inside[-1]

    @property
    def began(self):
        return self.samples["db"][0].when

    @property
    def ended(self):
        return self.samples["db"][-1].when

    def shares(self):
        """What each had of its rate, before and after the change."""
        before, after = (self.began, self.asked), (self.changed + SETTLED, self.ended)
        return {
            "db before": tcp_rate(*self.between("db", *before)) / BEFORE,
            "db after": tcp_rate(*self.between("db", *after)) / AFTER,
            "web before": rate(*self.between("web", *before)) / FLOODED,
            "web after": rate(*self.between("web", *after)) / FLOODED,
        }

    def at_once(self):
        """What db had of its new rate as soon as it has to be seen."""
        begin = self.changed + SETTLED
        return tcp_rate(*self.between("db", begin, begin + 5 * STEP)) / AFTER

    def undisturbed(self):
        """Whether this shows what the programs do: a machine that others keep from running is late with everything."""
        return min(self.shares().values()) >= LEAST and self.at_once() == SEEN and not self.requests.lost

    def rows(self, name, per_second):
        """(seconds, bits a second) of each step, for a plot."""
        samples = self.samples[name]
        return [(later.when - self.began, per_second(before, later)) for before, later in zip(samples, samples[1:])]


def sampled(node):
    """One run."""
    node.settle()
    with ThreadPoolExecutor(1) as pool, requests(node, "db") as asked:
        run = Run(node, pool, asked)
        run.serve(BEFORE)
        with iperf(node, "web", "-u", "-b", "6M", "-l", "1400"), iperf(node, "db", "-P", "4"):
            node.received["db"].over(SETTLED)
            before = retransmitted(node.containers["db"])
            ask([asked], run.goes_on, 3)
            run.retransmitted = retransmitted(node.containers["db"]) - before
        (run.dropped,) = [
            row["dropped_packets"] for row in node.request("GET", "/v1/bandwidth")["rates"] if row["endpoint"] == "db"
        ]
    return run


@pytest.fixture(scope="module")
def run(running, figures):
    found = reaching(lambda: sampled(running), Run.undisturbed)
    figures.note(
        "endpoints",
        {
            "wanted": {"db": [BEFORE, AFTER], "web": [FLOODED, FLOODED]},
            "asked": found.asked - found.began,
            "changed": found.changed - found.began,
            "rates": {"db": found.rows("db", tcp_rate), "web": found.rows("web", rate)},
            "retransmitted": found.retransmitted,
            "lost": found.requests.lost,
        },
    )
    return found


def test_each_has_its_own_rate(run):
    for what, share in run.shares().items():
        assert LEAST <= share <= MOST, what


def test_a_change_is_seen_within_a_second(run):
    assert run.at_once() == SEEN


def test_a_change_loses_nothing(run):
    """Not beyond the horizon, and not in fq. Of TCP, a slow machine may send again what it was only late with."""
    assert run.dropped == 0
    assert run.requests.lost == 0
    (root,) = [row for row in json.loads(run.node.lb.run("tc -j -s qdisc show dev eth0")) if row.get("root")]
    assert (root["kind"], root["drops"]) == ("fq", 0)
