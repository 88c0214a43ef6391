"""Line plots as SVG that a person would look at: few colours, readable ticks, the values on hover."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 640
HEIGHT: Final = 260
LEFT: Final = 56
RIGHT: Final = 16
TOP: Final = 14
BOTTOM: Final = 40
COLOURS: Final = 6
TICKS: Final = 5
SMALLEST: Final = 1e-9
"""What is less is drawn as nothing."""
MAX_DOTS: Final = 120

Points = Sequence[tuple[float, float]]

STYLE: Final = """
.plot{--c0:#3366cc;--c1:#d9622b;--c2:#2e8b57;--c3:#9b4fb3;--c4:#b8860b;--c5:#5f6b7a}
@media (prefers-color-scheme:dark){.plot{--c0:#7aa2f7;--c1:#ff9e64;--c2:#73c991;--c3:#c78bdc;--c4:#e0af68;--c5:#9aa5b1}}
.plot svg{width:100%;height:auto;display:block}
.plot text{font:11px system-ui,sans-serif;fill:var(--quiet)}
.plot .grid{stroke:var(--line);stroke-width:1}
.plot .axis{stroke:var(--quiet);stroke-width:1}
.plot .curve{fill:none;stroke-width:2;stroke-linejoin:round}
.plot .dot{stroke:none;opacity:0}.plot .dot:hover{opacity:1}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.8rem;color:var(--quiet)}
.legend i{display:inline-block;width:.9rem;height:.25rem;border-radius:2px;margin-right:.35rem;vertical-align:middle}
"""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows: its label and the ticks' places with their words; None places ticks by the values."""

    label: str
    ticks: Sequence[tuple[float, str]] | None = None


PERCENTILE_AXIS: Final = Axis(
    label="percentile of calls",
    ticks=[(math.log10(100 / (100 - p)), f"{p:g} %") for p in (0, 50, 90, 99, 99.9, 99.99)],
)


def percentile_plot(curves: Mapping[str, Points]) -> str:
    """Plot latencies by percentile; each further nine has the same width, so that the tail can be seen."""
    spread = {
        name: [(math.log10(100 / (100 - p)), value) for p, value in points] for name, points in curves.items()
    }
    return line_plot(spread, x=PERCENTILE_AXIS, y=Axis(label="ms"))


def line_plot(curves: Mapping[str, Points], *, x: Axis, y: Axis) -> str:
    """Return a figure with a legend and one line per curve; values are not negative, and the y axis begins at 0."""
    drawn = {name: points for name, points in curves.items() if points}
    if not drawn:
        return '<p class="quiet">not observed</p>'
    xs = [px for points in drawn.values() for px, _ in points]
    x_ticks = x.ticks or [(value, f"{value:g}") for value in nice_ticks(max(xs))]
    y_values = nice_ticks(max(py for points in drawn.values() for _, py in points))
    shown = [tick for tick in x_ticks if tick[0] <= max(xs) or tick is x_ticks[0]]
    scale = _Scale(x_max=max(*xs, 1e-9), y_max=y_values[-1])
    parts = [_grid(scale, y_values), _x_ticks(scale, shown), _labels(x.label, y.label)]
    parts += [_curve(scale, i, name, points) for i, (name, points) in enumerate(drawn.items())]
    legend = "".join(
        f'<span><i style="background:var(--c{i % COLOURS})"></i>{escape(name)}</span>'
        for i, name in enumerate(drawn)
    )
    return (
        f'<div class="plot"><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg></div>'
    )


def nice_ticks(highest: float) -> list[float]:
    """Return ticks from 0 to at least this value, at 1, 2 or 5 times a power of ten."""
    if highest < SMALLEST:
        return [0.0, 1.0]
    rough = highest / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * i for i in range(math.ceil(highest / step - 1e-9) + 1)]


@dataclass(frozen=True)
class _Scale:
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.x_max

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.y_max


def _grid(scale: _Scale, values: Sequence[float]) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{scale.y(v):.1f}" y2="{scale.y(v):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{scale.y(v) + 4:.1f}" text-anchor="end">{v:,.10g}</text>'
        for v in values
    )


def _x_ticks(scale: _Scale, ticks: Sequence[tuple[float, str]]) -> str:
    base = HEIGHT - BOTTOM
    return f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>' + "".join(
        f'<text x="{scale.x(place):.1f}" y="{base + 16}" text-anchor="middle">{escape(word)}</text>'
        for place, word in ticks
    )


def _labels(x: str, y: str) -> str:
    return (
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x)}</text>'
        f'<text x="4" y="{HEIGHT - 6}">{escape(y)}</text>'
    )


def _curve(scale: _Scale, index: int, name: str, points: Points) -> str:
    places = [(scale.x(px), scale.y(py), py) for px, py in points]
    path = " ".join(f"{'L' if i else 'M'}{px:.1f} {py:.1f}" for i, (px, py, _) in enumerate(places))
    colour = f"var(--c{index % COLOURS})"
    every = max(1, len(places) // MAX_DOTS)
    dots = "".join(
        f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour}">'
        f"<title>{escape(name)}: {value:,.4g}</title></circle>"
        for px, py, value in places[::every]
    )
    return f'<path class="curve" stroke="{colour}" d="{path}"/>{dots}'
