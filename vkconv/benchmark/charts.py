"""Plots as inline SVG: no script, nothing from elsewhere; colours are classes of the page's style.

Text is escaped here. Lengths are in units of the view box, which the page scales to its width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Point", "bars", "ratio_bars", "roofline"]

WIDTH = 760
ROW, LABEL, VALUE = 24, 210, 120
_LETTER = 6.4


@dataclass(frozen=True)
class Bar:
    """``text`` stands behind it; ``whisker`` is a second, larger value; ``about`` a tooltip."""

    label: str
    value: float
    text: str
    style: str = "vkconv"
    whisker: float | None = None
    about: str = ""


@dataclass(frozen=True)
class Point:
    """A node in a roofline: operations by byte, 10^9 operations a second, share of the time."""

    name: str
    intensity: float
    rate: float
    share: float


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars from 0, one below the other."""
    longest = max((max(r.value, r.whisker or 0) for r in rows), default=0) or 1.0
    room = WIDTH - LABEL - VALUE
    parts = []
    for index, row in enumerate(rows):
        y = index * ROW
        length = max(1.0, room * row.value / longest)
        parts.append(_text(LABEL - 8, y + 16, _shortened(row.label, LABEL - 12), "end"))
        parts.append(
            f'<rect class="{row.style}" x="{LABEL}" y="{y + 4}" width="{length:.1f}" height="16" '
            f'rx="2">{_tooltip(row.about or f"{row.label}: {row.text}")}</rect>'
        )
        end = length
        if row.whisker is not None and row.whisker > row.value:
            end = room * row.whisker / longest
            parts.append(
                f'<path class="line" d="M{LABEL + length:.1f} {y + 12}H{LABEL + end:.1f}'
                f'M{LABEL + end:.1f} {y + 8}V{y + 16}"/>'
            )
        parts.append(_text(LABEL + end + 6, y + 16, row.text))
    return _svg(parts, len(rows) * ROW + 4, title)


def ratio_bars(groups: Sequence[tuple[str, Sequence[Bar]]], title: str) -> str:
    """Groups of bars on a logarithmic axis that begin at 1: to the right more, to the left less."""
    values = [bar.value for _, own in groups for bar in own]
    low = min(-0.35, *(math.log10(v) for v in values)) if values else -0.5
    high = max(1.0, *(math.log10(v) for v in values)) if values else 1.0
    room = WIDTH - LABEL - 60

    def place(value: float) -> float:
        return LABEL + room * (math.log10(value) - low) / (high - low)

    thick = 11
    parts, y = [], 22.0
    for name, own in groups:
        height = max(ROW, len(own) * thick + 8)
        parts.append(_text(LABEL - 8, y + height / 2 + 4, _shortened(name, LABEL - 12), "end"))
        for index, bar in enumerate(own):
            top, start, end = y + 4 + index * thick, place(1), place(bar.value)
            parts.append(
                f'<rect class="{bar.style}" x="{min(start, end):.1f}" y="{top:.1f}" '
                f'width="{max(1.0, abs(end - start)):.1f}" height="{thick - 2}" rx="2">'
                f"{_tooltip(bar.about or f'{name}, {bar.label}: {bar.text}')}</rect>"
            )
            parts.append(_text(max(start, end) + 4, top + 8.5, bar.text, style="small"))
        y += height
    ticks = [v for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= math.log10(v) <= high]
    grid = [
        f'<path class="{"axis" if v == 1 else "grid"}" d="M{place(v):.1f} 18V{y:.1f}"/>'
        + _text(place(v), 12, f"{v:g}x", "middle", "small")
        for v in ticks
    ]
    return _svg([*grid, *parts], y + 6, title)


def roofline(points: Sequence[Point], gflops: float, gbytes: float, title: str) -> str:
    """Nodes under the ceilings of the device, on logarithmic axes; the area is the time's share."""
    height, left, bottom, top = 340, 64, 300, 14
    right = WIDTH - 20
    known = [p for p in points if p.intensity > 0 and p.rate > 0]
    ridge = gflops / gbytes
    x_low, x_high = _decades([p.intensity for p in known] + [ridge], 2.0)
    y_low, y_high = _decades([p.rate for p in known] + [gflops], 1.3)

    def x(value: float) -> float:
        return left + (right - left) * (math.log10(value) - x_low) / (x_high - x_low)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (math.log10(value) - y_low) / (y_high - y_low)

    parts = []
    for power in range(math.ceil(x_low), math.floor(x_high) + 1):
        parts.append(f'<path class="grid" d="M{x(10.0**power):.1f} {top}V{bottom}"/>')
        parts.append(_text(x(10.0**power), bottom + 16, f"{10.0**power:g}", "middle", "small"))
    for power in range(math.ceil(y_low), math.floor(y_high) + 1):
        parts.append(f'<path class="grid" d="M{left} {y(10.0**power):.1f}H{right}"/>')
        parts.append(_text(left - 6, y(10.0**power) + 4, f"{10.0**power:g}", "end", "small"))
    # below the ridge memory is the limit, beyond it arithmetic
    start = max(10.0**x_low, 10.0**y_low / gbytes)
    parts.append(
        f'<path class="roof" d="M{x(start):.1f} {y(start * gbytes):.1f}'
        f'L{x(ridge):.1f} {y(gflops):.1f}H{right}"/>'
    )
    parts.append(_text(right, y(gflops) - 6, f"{gflops:.0f} GFLOP/s", "end", "small"))
    parts.append(_text(x(start) + 10, y(start * gbytes) + 4, f"{gbytes:.1f} GB/s", style="small"))
    for p in sorted(known, key=lambda p: -p.share):
        about = f"{p.name}: {p.rate:.1f} GFLOP/s, {p.intensity:.1f} FLOP/byte, {p.share:.1%}"
        parts.append(
            f'<circle class="node" cx="{x(p.intensity):.1f}" cy="{y(p.rate):.1f}" '
            f'r="{3 + 30 * math.sqrt(p.share / math.pi):.1f}">{_tooltip(about)}</circle>'
        )
    parts.append(_text((left + right) / 2, height - 6, "FLOP by byte", "middle", "small"))
    turned = _text(0, 0, "GFLOP/s", "middle", "small")
    parts.append(f'<g transform="translate(16 {(top + bottom) / 2}) rotate(-90)">{turned}</g>')
    return _svg(parts, height, title)


def _decades(values: Iterable[float], margin: float) -> tuple[float, float]:
    """Powers of ten that hold all values with some margin, one apart at least."""
    logs = [math.log10(v) for v in values]
    spare = math.log10(margin)
    low, high = min(logs) - spare, max(logs) + spare
    return (low, high) if high - low >= 1 else (low - 0.5, high + 0.5)


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _tooltip(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _shortened(text: str, room: float) -> str:
    """The end of a name says most: its beginning makes way."""
    most = int(room / _LETTER)
    return text if len(text) <= most else "…" + text[1 - most :]
