"""Bar charts, as SVG."""

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


@dataclass(frozen=True)
class Bar:
    """One bar, of one or more parts."""

    label: str
    parts: list[tuple[str, float]]
    """(name, length); names of stacked parts make the legend."""
    spread: float = 0.0
    """Drawn as a line that begins at the bar's end."""

    @property
    def length(self):
        return sum(length for _, length in self.parts)


def plot(title, bars):
    """An SVG document with one horizontal bar a row, on a common scale that begins at 0."""
    longest = max((bar.length + bar.spread for bar in bars), default=0) or 1
    names = list(dict.fromkeys(name for bar in bars for name, _ in bar.parts if name))
    colour = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names or [""])}
    height = _MARGIN * 3 + _ROW * (len(bars) + len(names))
    width = _LABEL + _WIDTH + 100
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
        "<style>text { font-size: 12px }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN + 4}" font-weight="bold">{escape(title)}</text>',
    ]
    for row, bar in enumerate(bars):
        lines += _bar(bar, _MARGIN * 2 + row * _ROW, _WIDTH / longest, colour)
    for row, name in enumerate(names, len(bars)):
        y = _MARGIN * 2 + row * _ROW
        lines.append(f'<rect x="{_LABEL}" y="{y + 3}" width="12" height="12" fill="{colour[name]}"/>')
        lines.append(f'<text x="{_LABEL + 18}" y="{y + 13}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>\n"])


def _bar(bar, y, scale, colour):
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
