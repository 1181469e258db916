"""What plots say: places that are in proportion, and a label for everything."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from tools import svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(document, tag):
    return list(ElementTree.fromstring(document).iter(NAMESPACE + tag))


def texts(document):
    return [each.text for each in drawn(document, "text")]


def places(line):
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def test_lines_are_in_proportion():
    asked = svg.Line("asked for", [(0, 20), (10, 20)], dashed=True)
    document = svg.lines("Rates", "seconds", "Mbit/s", [svg.Line("a < b", [(0, 0), (5, 10), (10, 20)]), asked])
    first, second = drawn(document, "polyline")
    (x0, y0), (x1, y1), (x2, y2) = places(first)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2
    assert places(second) == [(x0, y2), (x2, y2)]
    # What was asked for has the colour of what was measured.
    assert first.get("stroke") == second.get("stroke")
    assert "stroke-dasharray" in second.attrib
    assert {"Rates", "seconds", "Mbit/s", "a < b", "asked for", "0", "5", "10", "20"} <= set(texts(document))


def test_spreads_are_logarithmic():
    rows = [svg.Spread("slow", {"p50": 100, "p99": 1000}), svg.Spread("fast", {"p50": 1, "p99": 10})]
    document = svg.spreads("Latency", "ms", rows)
    legend, (slow50, slow99, fast50, fast99) = drawn(document, "circle")[:2], drawn(document, "circle")[2:]
    x = [float(each.get("cx")) for each in (fast50, fast99, slow50, slow99)]
    assert [later - before for before, later in zip(x, x[1:])] == pytest.approx([x[1] - x[0]] * 3, abs=0.2)
    assert [each.get("fill") for each in legend] == [slow50.get("fill"), slow99.get("fill")]
    assert {"Latency", "ms", "slow", "fast", "p50", "p99", "1", "10", "100", "1000"} <= set(texts(document))


def test_bars_share_a_scale():
    document = svg.plot("Time", [svg.Bar("one", [("", 1.0)]), svg.Bar("three", [("", 3.0)], 1.0)])
    _, one, three, *_ = [float(each.get("width").rstrip("%")) for each in drawn(document, "rect")]
    assert three == pytest.approx(3 * one)
