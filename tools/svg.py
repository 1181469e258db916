"""Plots, as SVG: bars, lines over time, and spreads on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = (
    "#2f6f9f",
    "#e08a2e",
    "#4f9d4f",
    "#b9473f",
    "#8064a2",
    "#8a6d5b",
    "#d16ba5",
    "#6b6b6b",
    "#a8a832",
    "#3aa6b9",
)
_ROW, _LABEL, _WIDTH, _MARGIN = 22, 420, 520, 16
_HEIGHT, _AXIS = 240, 64
_GRID = "#dddddd"


@dataclass(frozen=True)
class Bar:
    """One bar, of one or more parts."""

    label: str
    parts: Sequence[tuple[str, float]]
    """(name, length); names of stacked parts make the legend."""
    spread: float = 0.0
    """Drawn as a line that begins at the bar's end."""

    @property
    def length(self) -> float:
        """Of all parts."""
        return sum(length for _, length in self.parts)


@dataclass(frozen=True)
class Line:
    """Points that are joined."""

    label: str
    """None of its own where it goes on with the line before."""
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    """What was asked for, beside what was measured: in the colour of the line of the same rank that is not."""


@dataclass(frozen=True)
class Spread:
    """Points of a distribution, on one row."""

    label: str
    points: Mapping[str, float]
    """Name -> place; names make the legend."""


def plot(title: str, bars: Sequence[Bar]) -> str:
    """One horizontal bar a row, on a common scale that begins at 0."""
    longest = max((bar.length + bar.spread for bar in bars), default=0.0) or 1.0
    names = list(dict.fromkeys(name for bar in bars for name, _ in bar.parts if name))
    colour = _colours(names or [""])
    lines = _head(title, _LABEL + _WIDTH + 100, _MARGIN * 3 + _ROW * (len(bars) + len(names)))
    for row, bar in enumerate(bars):
        lines += _bar(bar, _MARGIN * 2 + row * _ROW, _WIDTH / longest, colour)
    for row, name in enumerate(names, len(bars)):
        y = _MARGIN * 2 + row * _ROW
        lines.append(f'<rect x="{_LABEL}" y="{y + 3}" width="12" height="12" fill="{colour[name]}"/>')
        lines.append(f'<text x="{_LABEL + 18}" y="{y + 13}">{escape(name)}</text>')
    return _document(lines)


def lines(title: str, across: str, up: str, drawn: Sequence[Line]) -> str:
    """Lines over a common axis; both axes begin at 0."""
    furthest = max(x for line in drawn for x, _ in line.points)
    highest = 1.15 * max(y for line in drawn for _, y in line.points)
    top, left = _MARGIN * 3, _AXIS
    found = _head(title, left + _WIDTH + _LABEL // 2, top + _HEIGHT + 3 * _MARGIN)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / furthest * _WIDTH, top + _HEIGHT - y / highest * _HEIGHT

    for value in _ticks(highest):
        _, y = place(0, value)
        found.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + _WIDTH}" y2="{y:.1f}" stroke="{_GRID}"/>')
        found.append(_text(left - 8, y + 4, f"{value:g}", "end"))
    for value in _ticks(furthest):
        x, _ = place(value, 0)
        found.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + _HEIGHT}" stroke="{_GRID}"/>')
        found.append(_text(x, top + _HEIGHT + 16, f"{value:g}", "middle"))
    found.append(_text(left + _WIDTH / 2, top + _HEIGHT + 36, across, "middle"))
    found.append(_text(left, top - 8, up, "middle"))
    ranks = {False: -1, True: -1}
    row = 0
    for line in drawn:
        ranks[line.dashed] += bool(line.label)
        style = f'stroke="{_COLOURS[ranks[line.dashed] % len(_COLOURS)]}" fill="none" stroke-width="1.5"'
        style += ' stroke-dasharray="5 3"' if line.dashed else ""
        points = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points)
        found.append(f'<polyline points="{points}" {style}/>')
        if line.label:
            y = top + 8 + row * _ROW
            found.append(f'<line x1="{left + _WIDTH + 16}" y1="{y}" x2="{left + _WIDTH + 44}" y2="{y}" {style}/>')
            found.append(_text(left + _WIDTH + 52, y + 4, line.label))
            row += 1
    return _document(found)


def spreads(title: str, across: str, rows: Sequence[Spread]) -> str:
    """One distribution a row, from its first point to its last one, on a common logarithmic scale."""
    values = [value for row in rows for value in row.points.values()]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    names = list(dict.fromkeys(name for row in rows for name in row.points))
    colour = _colours(names)
    top, bottom = _MARGIN * 2 + _ROW, _MARGIN * 2 + _ROW * (len(rows) + 1)
    found = _head(title, _LABEL + _WIDTH + 100, bottom + 3 * _MARGIN)

    def place(value: float) -> float:
        return _LABEL + (math.log10(value) - first) / (last - first) * _WIDTH

    for power in range(first, last + 1):
        x = place(10.0**power)
        found.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{_GRID}"/>')
        found.append(_text(x, bottom + 16, f"{10.0**power:g}", "middle"))
    found.append(_text(_LABEL + _WIDTH / 2, bottom + 36, across, "middle"))
    for number, name in enumerate(names):
        x = _LABEL + 80 * number
        found.append(f'<circle cx="{x + 6}" cy="{_MARGIN * 2 + 5}" r="5" fill="{colour[name]}"/>')
        found.append(_text(x + 18, _MARGIN * 2 + 9, name))
    for number, row in enumerate(rows):
        y = top + _ROW * number + _ROW // 2
        found.append(_text(_LABEL - 16, y + 4, row.label, "end"))
        ends = [place(value) for value in (min(row.points.values()), max(row.points.values()))]
        found.append(f'<line x1="{ends[0]:.1f}" y1="{y}" x2="{ends[1]:.1f}" y2="{y}" stroke="#888888"/>')
        for name, value in row.points.items():
            found.append(f'<circle cx="{place(value):.1f}" cy="{y}" r="5" fill="{colour[name]}"/>')
        found.append(_text(ends[1] + 10, y + 4, _figure(max(row.points.values()))))
    return _document(found)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ticks(highest: float) -> Iterator[float]:
    """Round numbers from 0, eight of them at most."""
    power = 10.0 ** math.floor(math.log10(highest / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if highest / (power * factor) <= 8)
    for number in range(int(highest / step) + 1):
        yield number * step


def _colours(names: Sequence[str]) -> dict[str, str]:
    return {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}


def _head(title: str, width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        "<style>text { font-size: 12px }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN + 4}" font-weight="bold">{escape(title)}</text>',
    ]


def _document(found: Sequence[str]) -> str:
    return "\n".join([*found, "</svg>\n"])


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _bar(bar: Bar, y: int, scale: float, colour: Mapping[str, str]) -> Iterator[str]:
    yield f'<text x="{_LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>'
    x = float(_LABEL)
    for name, length in bar.parts:
        yield f'<rect x="{x:.1f}" y="{y}" width="{length * scale:.1f}" height="{_ROW - 6}" fill="{colour[name]}"/>'
        x += length * scale
    if bar.spread > 0:
        end = x + bar.spread * scale
        yield f'<line x1="{x:.1f}" y1="{y + 8}" x2="{end:.1f}" y2="{y + 8}" stroke="black"/>'
        x = end
    yield f'<text x="{x + 6:.1f}" y="{y + 13}">{bar.length:.4g}</text>'
