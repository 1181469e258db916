"""What many TCP flows of an endpoint have together, at several rates."""

import pytest

from bandwidth.traffic import LEAST, MOST, iperf, rate, reaching, tcp_rate
from datapath.compile.bandwidth import HORIZON

FLOWS = ("-P", "8")
BEGINNING, SECONDS = 1, 5
CARRIED = 1.5
"""An emulated machine that carries less than so many times a rate may well send less than the rate."""
ALWAYS = 10
"""Megabits a second that every machine has to carry."""


def carried(node):
    """Bits a second that this machine carries without a rate."""
    node.serve({})
    node.settle()
    with iperf(node, "db", *FLOWS):
        node.received["db"].over(BEGINNING)
        return tcp_rate(*node.received["db"].over(3))


@pytest.fixture(scope="module")
def capacity(running, figures):
    measured = carried(running)
    figures.note("carried", measured)
    return measured


@pytest.mark.parametrize("megabits", [10, 100, 500])
def test_many_flows(node, figures, capacity, megabits):
    wanted = megabits * 1_000_000
    node.serve({"db": str(wanted)})
    with iperf(node, "db", *FLOWS):
        node.received["db"].over(BEGINNING)
        both = megabits == ALWAYS or capacity >= CARRIED * wanted
        measured = reaching(
            lambda: tcp_rate(*node.received["db"].over(SECONDS)), lambda found: not both or found >= LEAST * wanted
        )
    if both and measured < LEAST * wanted and megabits != ALWAYS:
        # Whoever shares this machine's processor may have come only now.
        both = carried(node) >= CARRIED * wanted
    figures.note(f"rate {megabits}", {"wanted": wanted, "measured": measured, "carried": both})
    assert measured <= MOST * wanted
    assert not both or measured >= LEAST * wanted


def test_a_flood(node):
    """Of a sender that nothing slows down: neither more, nor less because fq drops what had its time."""
    wanted = 2_000_000
    node.serve({"db": str(wanted)})
    with iperf(node, "db", "-u", "-b", "6M", "-l", "1400"):
        node.received["db"].over(HORIZON)
        measured = reaching(lambda: rate(*node.received["db"].over(SECONDS)), lambda found: found >= LEAST * wanted)
        (row,) = node.request("GET", "/v1/bandwidth")["rates"]
    assert LEAST * wanted <= measured <= MOST * wanted
    assert row["dropped_packets"] > 0
