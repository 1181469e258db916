"""The harness works, and the figures that do not jitter are as good as the committed ones. Times gate nothing.

The tables are shown (pytest -s), as the last thing that a run tells about the speed.
"""

import copy
import json
import os
from xml.etree import ElementTree

import pytest

from bench import __main__ as command
from bench import cases, figures, floors, harness, measure, node, programs, steps
from bench.wrapper import Order, Traffic, Wrapper

SHORT = programs.BUILD / "short"
CASES = 18 + 3 * 12
"""Of SNAT and of passing; of each dispatch of direct server return."""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")


@pytest.fixture(scope="module")
def report():
    found = harness.run(harness.SHORT, None, lambda text: None)
    print()
    command.show(found, SHORT)
    return found


def test_nothing_that_does_not_jitter_got_worse(report):
    worse, remarks = figures.compare(report["figures"], json.loads(figures.BASELINE.read_text()))
    print("\n" + "\n".join(remarks))
    assert worse == []


def test_every_case_and_job_is_in_the_report(report):
    assert {row["program"] for row in report["packets"]} == {"min", "slb", "load balancer"}
    assert len(report["packets"]) == 3 * CASES
    assert {row["map_writes"] == 0 for row in report["executor"] if "nothing to change" in row["job"]} == {True}


def test_files_are_written(report):
    assert json.loads((SHORT / "bench.json").read_text()) == report
    bars = ElementTree.parse(SHORT / "packets.svg").iter("{http://www.w3.org/2000/svg}rect")
    assert len(list(bars)) == 1 + 2 * CASES


@pytest.fixture(scope="module")
def bench():
    with node.converged() as one, Wrapper() as wrapper, floors.loaded() as yardsticks:
        yield measure.Bench(one, wrapper, yardsticks, harness.SHORT)


def test_a_frame_is_the_same_on_every_repeat(bench):
    """Encapsulated once, also the thousandth time; the kernel alone would encapsulate what it had encapsulated."""
    traffic = next(iter(cases.established(bench.node.devices))).traffic
    bench.wrapper.choose(bench.slb.program)
    _, once, _ = bench.wrapper.run(traffic, 1)
    _, often, _ = bench.wrapper.run(traffic, 1000)
    assert len(once) == len(traffic.frame) + 20
    assert often == once


def test_flows_differ_as_they_are_told_to(bench):
    first = next(iter(cases.established(bench.node.devices))).traffic
    bench.wrapper.choose(bench.tx.program)
    for order, seen in ((Order.SEQUENTIAL, 4), (Order.FRESH, 64)):
        traffic = Traffic(first.frame, first.device, flows=4, order=order)
        frames = {bench.wrapper.run(traffic, 1 + each % 4)[1] for each in range(64)}
        assert len(frames) == seen


def test_a_case_that_takes_another_way_is_no_result(bench):
    case = next(iter(cases.not_a_vip(bench.node.devices)))
    wrong = copy.copy(case)
    object.__setattr__(wrong, "outcome", "request_forwarded")
    target = measure.Target("load balancer", bench.node.program)
    assert len(bench.measure(case, [target])) == 1
    with pytest.raises(measure.OutcomeError, match="0 of 20000"):
        bench.measure(wrong, [target])


@pytest.mark.parametrize("name", harness.STEPS_KNOWN)
def test_steps_do_what_the_load_balancer_does(bench, name):
    case = next(each for each in cases.established(bench.node.devices) if each.name == name)
    bench.measure(case, [measure.Target("load balancer", bench.node.program)])
    with steps.loaded(bench.node, fresh=False) as targets:
        steps.check(bench, case, targets)


FIGURES = {
    "toolchain": "here",
    "verifier": {"verified": 1000, "instructions": 100},
    "helpers": {"one": {"map_lookup_elem": 3, "fib_lookup": 1}},
}
BASELINE = {"verifier": {"here": FIGURES["verifier"]}, "helpers": FIGURES["helpers"]}


@pytest.mark.parametrize(
    ("path", "value", "worse", "remarked"),
    [
        (("verifier", "verified"), 1000, 0, 0),
        (("verifier", "verified"), 1100, 0, 0),
        (("verifier", "verified"), 1101, 1, 0),
        (("verifier", "verified"), 800, 0, 1),
        (("helpers", "one", "map_lookup_elem"), 4, 1, 0),
        (("helpers", "one", "map_lookup_elem"), 2, 0, 1),
        (("helpers", "one"), {"map_lookup_elem": 2, "fib_lookup": 2}, 1, 0),
        (("helpers",), {}, 1, 0),
        (("helpers", "two"), {}, 1, 0),
        (("toolchain",), "elsewhere", 0, 1),
    ],
)
def test_comparison(path, value, worse, remarked):
    changed = copy.deepcopy(FIGURES)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    found = figures.compare(changed, BASELINE)
    assert (len(found[0]), len(found[1])) == (worse, remarked)
