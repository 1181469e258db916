"""How long small requests take beside a bulk flow, shaped by the bandwidth manager and by HTB."""

import pytest

from bandwidth.traffic import ask, iperf, requests, tcp_rate

RATE = 10_000_000
FILLING = 6
"""Seconds in which the bulk flow fills its queue."""
COUNT = 300
PATIENCE = 5
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


@pytest.fixture(scope="module")
def latency(running, figures):
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
    figures.note("latency", found)
    return found


def test_of_another_endpoint(latency):
    """Whose queue is nobody else's."""
    for shaper in ("manager", ROUTED):
        assert latency[shaper]["other"]["p99"] * 3 < latency["HTB"]["same"]["p99"]
        assert latency[shaper]["other"]["lost"] == 0


def test_of_the_endpoint_itself(latency):
    """A sender that its packets stay on the account of has two of them in the queue, not a window."""
    assert latency[ROUTED]["same"]["p99"] * 3 < latency["HTB"]["same"]["p99"]
