"""The CPU figures as bars: one panel for each number of child spans."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from benchmarks.cpu import BASE, OURS, Figures

_WIDTH, _LABELS, _ROW, _HEAD = 760, 250, 22, 46
_MORE = 30
"""At the left, for labels in a font wider than most."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600;font-size:13px}"
    ".bar{fill:#9aa5b1}.ours{fill:#6c5fc7}.whisker{stroke:#333;stroke-width:1}"
)


def to_svg(figures: Sequence[Figures], labels: dict[str, str]) -> str:
    """Medians, with the range of the rounds as a line; each panel has a scale of its own."""
    parts: list[str] = []
    top = 10
    for panel in figures:
        stacks = sorted((name for name in panel.rounds if name != BASE), key=panel.median)
        longest = max(max(panel.over(name)) for name in stacks)
        scale = (_WIDTH - _LABELS - 90) / max(longest, 1.0)
        title = f"{panel.spans} child spans" if panel.spans else "no child spans"
        parts.append(
            f'<text class="title" x="10" y="{top + 16}">{title}: CPU microseconds for a request, '
            "over OpenTelemetry alone</text>"
        )
        top += 28
        for name in stacks:
            values = panel.over(name)
            parts.extend(_bar(labels[name], values, top, scale, is_ours=name == OURS))
            top += _ROW
        top += _HEAD - _ROW
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + _MORE}" height="{top}" '
        f'viewBox="-{_MORE} 0 {_WIDTH + _MORE} {top}">\n<style>{_STYLE}</style>\n'
        f'<rect x="-{_MORE}" width="{_WIDTH + _MORE}" height="{top}" fill="#fff"/>\n'
        f"{body}\n</svg>\n"
    )


def _bar(
    label: str, values: list[float], top: int, scale: float, *, is_ours: bool
) -> tuple[str, ...]:
    median, least, most = statistics.median(values), min(values), max(values)
    width, middle = max(1.0, median * scale), top + _ROW / 2 - 2
    kind = "bar ours" if is_ours else "bar"
    left, right = (_LABELS + max(0.0, value * scale) for value in (least, most))
    return (
        f'<text x="{_LABELS - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>',
        f'<rect class="{kind}" x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_ROW - 5}"/>',
        f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{max(right, _LABELS + width) + 6:.1f}" y="{middle + 4}">{median:,.0f}</text>',
    )
