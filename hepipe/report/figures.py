"""Small figures as SVG that follows the page's colours, and pictures of tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from hepipe.report.html import Html, safe

WIDTH, HEIGHT = 460, 230
BARS_WIDTH = 900
BAR_COLORS = ("s0", "s1", "s2", "s3", "s4", "s6", "s7")
"""Without the grey one, which the rest has."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 24, 34
SERIES = 8
"""Colours that the style sheet has; further series repeat them with a dash."""
OUTLINE_RGB = (255, 214, 10)
MAX_POINTS = 400

Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], *, x_label: str, y_label: str) -> Html:
    """Curves over one axis, each with its name at the top; nan leaves a gap."""
    every = [point for points in series.values() for point in points if all(map(math.isfinite, point))]
    if not every:
        return Html("")
    xs, ys = _range([x for x, _ in every]), _range([y for _, y in every])
    parts = [_axes(xs, ys, x_label, y_label)]
    for place, points in enumerate(series.values()):
        shown = [point for point in _thinned(points) if all(map(math.isfinite, point))]
        path = " ".join(f"{_x(x, xs):.1f},{_y(y, ys):.1f}" for x, y in shown)
        parts.append(f'<polyline class="s{place % SERIES}" points="{path}"/>')
    return Html(_svg("".join(parts), f"{y_label} over {x_label}") + _legend(list(series)))


def scatter(points: Mapping[str, Points], *, x_label: str, y_label: str, with_identity: bool = True) -> Html:
    """Dots of several groups on one scale for both axes, with the line on which they should lie."""
    every = [value for group in points.values() for point in group for value in point if math.isfinite(value)]
    if not every:
        return Html("")
    both = _range(every)
    parts = [_axes(both, both, x_label, y_label)]
    if with_identity:
        parts.append(
            f'<line class="identity" x1="{_x(both[0], both):.1f}" y1="{_y(both[0], both):.1f}" '
            f'x2="{_x(both[1], both):.1f}" y2="{_y(both[1], both):.1f}"/>'
        )
    for place, group in enumerate(points.values()):
        shown = _thinned(group)
        parts += [
            f'<circle class="s{place % SERIES}" cx="{_x(x, both):.1f}" cy="{_y(y, both):.1f}" r="2.6"/>'
            for x, y in shown
            if math.isfinite(x) and math.isfinite(y)
        ]
    return Html(_svg("".join(parts), f"{y_label} against {x_label}") + _legend(list(points)))


def stacked_bars(bars: Mapping[str, Mapping[str, int]], *, kept: str) -> Html:
    """A bar for each name, as long as every other, divided by the shares of its parts; how many they are beside it.

    Args:
        bars: Name to part to count; every bar has the same parts in the same order, `kept` the last and before it the
            rest that has no colour of its own.
        kept: The part that is drawn faint.
    """
    if not bars:
        return Html("")
    names = list(next(iter(bars.values())))
    shades = {name: BAR_COLORS[place % len(BAR_COLORS)] for place, name in enumerate(names)}
    shades |= {names[-2]: "other", kept: "kept"}
    # About 6.2 px a letter of this font.
    left, top, step = 12 + round(6.2 * max(map(len, bars))), 6, 17
    right, width = 60, BARS_WIDTH
    parts = []
    for place, (title, counts) in enumerate(bars.items()):
        y = top + step * place
        whole = sum(counts.values())
        parts.append(f'<text x="{left - 6}" y="{y + 10}" text-anchor="end">{safe(title)}</text>')
        x = float(left)
        for name, count in counts.items():
            if count:
                wide = count / whole * (width - left - right)
                told = safe(f"{title}: {name} {count} of {whole}")
                parts.append(
                    f'<rect class="{shades[name]}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{step - 5}">'
                    f"<title>{told}</title></rect>"
                )
                x += wide
        parts.append(f'<text x="{width - right + 6}" y="{y + 10}">{whole}</text>')
    height = 2 * top + step * len(bars)
    head = f'<svg class="bars" viewBox="0 0 {width} {height}" role="img" aria-label="parts of each bar">'
    used = [name for name in names if any(counts[name] for counts in bars.values())]
    entries = "".join(f'<span><i class="{shades[name]}"></i>{safe(name)}</span>' for name in used)
    return Html(f'{head}{"".join(parts)}</svg><div class="legend">{entries}</div>')


def with_outline(tile: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A tile with the edge of a mask drawn on it."""
    drawn = np.ascontiguousarray(tile).copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(tile.shape[0] / 200))
    cv2.drawContours(drawn, contours, -1, OUTLINE_RGB, thickness)
    return drawn


def _thinned(points: Points) -> Points:
    step = max(1, math.ceil(len(points) / MAX_POINTS))
    return points[::step]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _x(value: float, xs: tuple[float, float]) -> float:
    return LEFT + (value - xs[0]) / (xs[1] - xs[0]) * (WIDTH - LEFT - RIGHT)


def _y(value: float, ys: tuple[float, float]) -> float:
    return HEIGHT - BOTTOM - (value - ys[0]) / (ys[1] - ys[0]) * (HEIGHT - TOP - BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(number * step) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(xs: tuple[float, float], ys: tuple[float, float], x_label: str, y_label: str) -> str:
    parts = []
    for value in _ticks(*ys):
        at = _y(value, ys)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in _ticks(*xs):
        at = _x(value, xs)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:.6g}</text>')
    parts.append(
        f'<text class="label" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{safe(x_label)}</text>'
        f'<text class="label" x="{LEFT}" y="12">{safe(y_label)}</text>'
    )
    return "".join(parts)


def _svg(content: str, title: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{safe(title)}">{content}</svg>'


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    entries = "".join(f'<span><i class="s{place % SERIES}"></i>{safe(name)}</span>' for place, name in enumerate(names))
    return f'<div class="legend">{entries}</div>'
