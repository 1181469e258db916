"""Aligned tables and colour for a terminal; plain text for everything else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import IO, Optional

RED, GREEN, YELLOW, BOLD, DIM = "31", "32", "33", "1", "2"

_STATE_COLOURS = {
    "healthy": GREEN,
    "active": GREEN,
    "unhealthy": RED,
    "terminating": YELLOW,
    "quarantined": YELLOW,
    "maintenance": YELLOW,
    "present": GREEN,
    "published": GREEN,
    "ready": GREEN,
    "connected": YELLOW,
    "not connected": RED,
    "pending": YELLOW,
}


def wants_colour(stream: Optional[IO[str]] = None) -> bool:
    """Colour is for a terminal, unless NO_COLOR (https://no-color.org) or TERM=dumb says otherwise."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: Optional[IO[str]] = None) -> str:
    """`text` in `colour` where `stream` (default: stdout) is a terminal."""
    return f"\033[{colour}m{text}\033[0m" if text and colour and wants_colour(stream) else text


def paint_state(text: str) -> str:
    """A state or health in the colour that it always has."""
    return paint(text, _STATE_COLOURS.get(text.split(maxsplit=1)[0] if text else "", ""))


def table(header: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell, two blanks between; columns of index `right` are right-aligned.

    The last column is not padded. Colour is put on after the widths are known, by column content.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(header, *cells)]
    head = paint(_line(header, widths, right), BOLD)
    return "\n".join([head, *(_line(row, widths, right, coloured=True) for row in cells)])


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[int], coloured: bool = False) -> str:
    parts: list[str] = []
    for index, (text, width) in enumerate(zip(cells, widths)):
        padding = " " * (width - len(text))
        shown = paint_state(text) if coloured and text in _STATE_COLOURS else text
        parts.append(padding + shown if index in right else shown + padding)
    return "  ".join(parts).rstrip()


def count(value: int) -> str:
    """12345 -> 12,345."""
    return f"{value:,}"


def size(value: float) -> str:
    """Bytes in powers of 1024: 1536 -> 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """93784 -> 1d 2h; the two largest units."""
    rest = int(seconds)
    parts: list[str] = []
    for letter, unit in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if rest >= unit or (letter == "s" and not parts):
            parts.append(f"{rest // unit}{letter}")
            rest %= unit
    return " ".join(parts[:2])


def since(when: float) -> str:
    """How long something is so (`when` in seconds since the epoch)."""
    return duration(max(time.time() - when, 0))


def ago(when: Optional[float]) -> str:
    """How long something is past; a dash where it never was."""
    return "-" if when is None else f"{since(when)} ago"


def percent(part: float, whole: float) -> str:
    """Share of `whole` as 33.3 %; a dash when there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"
