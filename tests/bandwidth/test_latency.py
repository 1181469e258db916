"""How long small requests take beside a bulk flow, shaped by the bandwidth manager and by HTB."""

import pytest

from bandwidth.traffic import ask, iperf, reaching, requests, tcp_rate

RATE = 10_000_000
FILLING = 6
"""Seconds in which the bulk flow fills its queue."""
COUNT = 300
PATIENCE = 5
LOWER = 3
"""Times that p99 has to be lower at least; the documented figures say how much it is."""
ROUTED = "manager, routing by BPF"
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def measure(node):
    """Percentiles (ms) of requests of the endpoint that has the bulk flow, and of the other one."""
    received = node.received["db"]
    with iperf(node, "db"), requests(node, "db") as same, requests(node, "web") as other:
        received.over(FILLING)
        before = received.read()
        ask((same, other), lambda: len(same.sent) < COUNT, PATIENCE)
        after = received.read()
    return {"same": _row(same), "other": _row(other), "bulk": tcp_rate(before, after)}


def _row(asked):
    # Who waited in vain waited for so long at least.
    found = {name: min(asked.percentile(share), PATIENCE) * 1e3 for name, share in SHARES.items()}
    return {**found, "lost": asked.lost, "sent": len(asked.sent)}


def ratios(found):
    """How many times lower than HTB's, beside the same flow, p99 is where the queue is another one or a short one."""
    htb = found["HTB"]["same"]["p99"]
    others = {shaper: htb / found[shaper]["other"]["p99"] for shaper in ("manager", ROUTED)}
    return {"other": min(others.values()), "same": htb / found[ROUTED]["same"]["p99"]}


def undisturbed(found):
    """Whether this shows what the shapers do: a machine that others keep from running is late with everything."""
    lost = sum(found[shaper]["other"]["lost"] for shaper in ("manager", ROUTED))
    return min(ratios(found).values()) > LOWER and not lost


def compared(running):
    """All shapers, one after the other."""
    found = {}
    rates = {"db": RATE, "web": RATE}
    running.settle()
    running.htb(rates)
    found["HTB"] = measure(running)
    running.settle()
    running.no_htb()
    for name, legacy in (("manager", True), (ROUTED, False)):
        running.serve({name: str(each) for name, each in rates.items()}, enable_host_legacy_routing=legacy)
        found[name] = measure(running)
        running.settle()
    return found


@pytest.fixture(scope="module")
def latency(running, figures):
    found = reaching(lambda: compared(running), undisturbed)
    figures.note("latency", found)
    return found


def test_of_another_endpoint(latency):
    """Whose queue is nobody else's."""
    assert ratios(latency)["other"] > LOWER
    assert [latency[shaper]["other"]["lost"] for shaper in ("manager", ROUTED)] == [0, 0]


def test_of_the_endpoint_itself(latency):
    """A sender that its packets stay on the account of has two of them in the queue, not a window."""
    assert ratios(latency)["same"] > LOWER
