"""Tables and units for the terminal."""

import io

import pytest

from datapath.cli import tables


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_columns_are_aligned():
    text = tables.table(("NAME", "COUNT"), [("a", 5), ("longer", 12345)], right=(1,))
    assert text.splitlines() == [
        "NAME    COUNT",
        "a           5",
        "longer  12345",
    ]


def test_no_trailing_blanks():
    text = tables.table(("A", "B"), [("x", ""), ("y", "long")])
    assert all(line == line.rstrip() for line in text.splitlines())


def test_colour_does_not_change_the_alignment(monkeypatch):
    import re

    rows = [("10.0.0.1:80", "healthy", "x"), ("10.0.0.2:80", "unhealthy", "y")]
    plain = tables.table(("BACKEND", "HEALTH", "Z"), rows)
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = tables.table(("BACKEND", "HEALTH", "Z"), rows)
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
    ],
)
def test_wants_colour(monkeypatch, stream, environment, expected):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tables.wants_colour(stream) is expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.9, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (93784, "1d 2h"), (86400, "1d")],
)
def test_duration(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 30, "1.0 GiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_size(value, text):
    assert tables.size(value) == text


def test_percent():
    assert tables.percent(1, 3) == "33.3 %"
    assert tables.percent(0, 0) == "-"
