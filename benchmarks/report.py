"""The figures as a page."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version

from benchmarks.cpu import BASE, OURS, Figures
from benchmarks.latency import RATE, Latency

LABELS = {
    "discard": "batch processor, exporter discards",
    "otlp": "OTLP/HTTP, no Sentry at all",
    "otlp_integration": "OTLPIntegration + SentryAsgiMiddleware",
    "sentry_asgi": "SentryAsgiMiddleware, transactions",
    "sentry_asgi_stream": "SentryAsgiMiddleware, streamed spans",
    "legacy": "sentry-sdk's SentrySpanProcessor",
    "ours_sdk": "otel-sentry-asgi, exporter sdk",
    "ours": "otel-sentry-asgi",
    "ours_unsampled": "otel-sentry-asgi, not sampled by Sentry",
}

_PACKAGES = ("sentry-sdk", "opentelemetry-sdk", "opentelemetry-instrumentation-asgi", "orjson")


def environment() -> str:
    """Where the figures were measured."""
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"CPython {platform.python_version()}, {os.cpu_count()} cores; {packages}"


def cpu_table(figures: Sequence[Figures]) -> str:
    """Medians, and how often ours goes into each with the range of the rounds."""
    heads = [f"{panel.spans} spans" for panel in figures]
    lines = [
        "| stack | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * len(figures),
    ]
    stacks = [name for name in LABELS if name in figures[0].rounds and name != BASE]
    for name in stacks:
        cells = [_cell(panel, name) for panel in figures]
        mark = "**" if name == OURS else ""
        lines.append(f"| {mark}{LABELS[name]}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(panel: Figures, name: str) -> str:
    median = f"{panel.median(name):,.0f}"
    if name == OURS:
        return f"**{median}**"
    ratios = panel.ratios(name)
    spread = f"{ratios[0]:.1f} to {ratios[-1]:.1f}"
    return f"{median} ({statistics.median(ratios):.1f}x; {spread})"


_STAGES = {
    "request": "the request path, sampled",
    "unsampled": "the request path, not sampled",
    "take": "worker: take the spans from the queue",
    "assemble": "worker: cut the segment",
    "read": "worker: request, noise, decision, exceptions",
    "translate": "worker: translate",
    "clean": "worker: the policy",
    "prepare": "worker: scopes, event processors, scrubber",
    "encode": "worker: encode",
    "turn": "worker: all of it",
}


def stages_table(panels: dict[int, dict[str, float]]) -> str:
    """Thousands of instructions by stage."""
    lines = [
        "| stage | " + " | ".join(f"{spans} spans" for spans in panels) + " |",
        "|---|" + "---:|" * len(panels),
    ]
    for name, label in _STAGES.items():
        cells = (f"{panel[name]:,.0f}" for panel in panels.values())
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latency_table(values: dict[str, list[Latency]]) -> str:
    """The median of the rounds."""
    lines = [
        f"| stack | p50 at {RATE}/s | p99 at {RATE}/s | requests/s at saturation |",
        "|---|---:|---:|---:|",
    ]
    for name, rounds in values.items():
        p50 = statistics.median(one.p50 for one in rounds)
        p99 = statistics.median(one.p99 for one in rounds)
        most = statistics.median(one.throughput for one in rounds)
        lines.append(f"| {LABELS[name]} | {p50:.1f} ms | {p99:.1f} ms | {most:,.0f} |")
    return "\n".join(lines)
