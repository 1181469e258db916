"""What commands make of answers."""

from datapath.cli.commands import measured


def answer(when, **passed):
    names = ("egress", "ingress")
    return {
        "when": when,
        "rates": [
            {"number": 4097, "direction": name, "passed_bytes": passed[name]} for name in names if name in passed
        ],
    }


def test_a_rate_is_what_passed_meanwhile():
    found = measured(answer(10.0, egress=1000, ingress=500), answer(12.0, egress=3000, ingress=500))
    assert found["seconds"] == 2.0
    assert [row["measured"] for row in found["rates"]] == [8000.0, 0.0]


def test_counters_that_began_anew_meanwhile():
    found = measured(answer(10.0, egress=1000), answer(11.0, egress=400, ingress=100))
    assert [row["measured"] for row in found["rates"]] == [0.0, 800.0]
