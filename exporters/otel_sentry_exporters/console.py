"""In a terminal: each transaction as a waterfall, and an error event as an issue.

Drawing and exporting are apart: `waterfall` and `issue` make Rich renderables from any payload,
also from one that came back from a receiver. They are total: what is missing or of another type
than expected is left out, and no text in a payload reaches the terminal as anything but text.
Needs the extra `console`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

try:
    from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
    from rich.measure import Measurement
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    missing = "the console exporter needs Rich: pip install 'otel-sentry-asgi[console]'"
    raise ImportError(missing) from error

if TYPE_CHECKING:
    from otel_sentry_asgi.export import Clean, Exporter, Origin, Transaction

Payload = Mapping[str, Any]

MAX_ROWS: Final = 60
"""Spans drawn of one transaction."""

MAX_FRAMES: Final = 4
"""Frames drawn of one exception: the innermost of the application's."""

_LATE: Final = "sentry.parent_span_already_sent"
_LONGEST: Final = 500
_DEEPEST: Final = 12


class ConsoleExporter:
    """Draws each transaction on *file* (standard output by default), *width* columns wide (by
    default as wide as the terminal, 80 where there is none).

    Colours only in a terminal. What one transaction draws is written at once.
    """

    def __init__(self, file: TextIO | None = None, width: int | None = None) -> None:
        self._console = Console(file=file, width=width)

    def export(self, transaction: Clean[Transaction], origin: Origin) -> None:
        """Draw the transaction."""
        with self._console.capture() as drawing:
            self._console.print(waterfall(transaction.payload), end="\n\n")
        encoding = self._console.encoding
        self._console.file.write(drawing.get().encode(encoding, "replace").decode(encoding))
        self._console.file.flush()

    def force_flush(self, timeout: float) -> bool:
        """Nothing waits."""
        return True

    def shutdown(self) -> None:
        """Nothing: the file belongs to the application."""


def waterfall(transaction: Payload) -> RenderableType:
    """A transaction: its name and whereabouts, then a row for each span with its time as a bar."""
    rows = _in_tree_order(transaction)
    extent = _extent([span for _, span in rows])
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=2, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for depth, span in rows[:MAX_ROWS]:
        table.add_row(_label(depth, span), _bar(span, extent), _duration(span))
    status = _plain(_trace(transaction).get("status")) or "no status"
    header = _line(
        (_plain(transaction.get("transaction")) or "(no name)", "bold"),
        (_plain(_trace(transaction).get("op")), "cyan"),
        (status, _colour_of(status)),
        (_duration(transaction), ""),
    )
    source = _plain(_mapping(transaction.get("transaction_info")).get("source"))
    where = _whereabouts(transaction, f"source {source}" if source else "")
    return Group(header, *where, table, *_notes(transaction, len(rows)))


def issue(event: Payload) -> RenderableType:
    """An error event: what was raised or said, where, and through which of the application's
    frames it came, from the outermost to the innermost; then what caused it, likewise."""
    values = list(reversed(_items(event.get("exception"))))
    parts: list[RenderableType] = list(_headline(event, values))
    parts.extend(_whereabouts(event))
    for number, value in enumerate(values):
        if number:
            parts.append(_line((f"  {_relation(value)}", "dim"), (_title(value), "bold")))
        parts.extend(_frames(value))
    return Group(*parts)


# -- the rows of a waterfall ----------------------------------------------------------------------


def _in_tree_order(transaction: Payload) -> list[tuple[int, Payload]]:
    """The transaction itself and its spans, each with its depth, below their parents and by their
    start. What names no parent in here stands below the transaction."""
    trace = _trace(transaction)
    root_id = _plain(trace.get("span_id"))
    root = {**trace, "description": transaction.get("transaction")}
    root.update((key, transaction.get(key)) for key in ("start_timestamp", "timestamp"))
    spans = sorted(_items(transaction.get("spans")), key=_start)
    known = {_plain(span.get("span_id")) for span in spans}
    below: dict[str, list[int]] = {}
    for index, span in enumerate(spans):
        parent = _plain(span.get("parent_span_id"))
        below.setdefault(parent if parent in known else root_id, []).append(index)
    rows: list[tuple[int, Payload]] = [(0, root)]
    placed: set[int] = set()
    # The spans of a ring are below none that is placed: they begin anew.
    tops = [*below.get(root_id, ()), *range(len(spans))]
    stack = [(1, index) for index in reversed(tops)]
    while stack:
        depth, index = stack.pop()
        if index in placed:
            continue
        placed.add(index)
        rows.append((depth, spans[index]))
        children = below.get(_plain(spans[index].get("span_id")), ())
        stack.extend((depth + 1, child) for child in reversed(children))
    return rows


def _label(depth: int, span: Payload) -> Text:
    description = _plain(span.get("description"))
    failed = _colour_of(_plain(span.get("status")) or "ok")
    return _line(
        ("  " * min(depth + 1, _DEEPEST) + _plain(span.get("op") or "span"), "cyan"),
        (description, failed if failed == "red" else ""),
        gap=" ",
    )


def _extent(spans: list[Payload]) -> tuple[float, float]:
    """The first start and the last end."""
    times = [time for span in spans if (time := _times(span)) is not None]
    if not times:
        return 0.0, 0.0
    return min(start for start, _ in times), max(end for _, end in times)


def _bar(span: Payload, extent: tuple[float, float]) -> RenderableType:
    times, whole = _times(span), extent[1] - extent[0]
    if times is None:
        return ""
    begin, end = ((time - extent[0]) / whole if whole else 0.0 for time in times)
    return _Bar(begin, end if whole else 1.0, _colour_of(_plain(span.get("status")) or "ok"))


@dataclass(frozen=True, slots=True)
class _Bar:
    """A bar from *begin* to *end*, where 0 and 1 are the ends of the room there is."""

    begin: float
    end: float
    colour: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        first = min(int(self.begin * width), width - 1)
        cells = max(1, round(self.end * width) - first)
        yield Segment(" " * first)
        yield Segment(("=" if options.ascii_only else "━") * cells, console.get_style(self.colour))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def _notes(transaction: Payload, rows: int) -> Iterator[Text]:
    if rows > MAX_ROWS:
        yield _line((f"  and {rows - MAX_ROWS} more spans", "dim"))
    dropped = _number(transaction.get("_dropped_spans"))
    if dropped:
        yield _line((f"  {dropped:.0f} spans were dropped", "yellow"))
    if _mapping(_trace(transaction).get("data")).get(_LATE):
        yield _line(("  follow-up: ended after the transaction of its request was sent", "yellow"))


# -- the lines of an issue ------------------------------------------------------------------------


def _headline(event: Payload, values: list[Payload]) -> Iterator[Text]:
    mechanism = _mapping(values[0].get("mechanism")) if values else {}
    handled = mechanism.get("handled")
    level = _plain(event.get("level")) or "error"
    if isinstance(handled, bool):
        level = "handled" if handled else "unhandled"
    name = _plain(event.get("transaction"))
    yield Text(_title(values[0]) if values else _message(event), style="bold")
    yield _line(
        (f"  {level}", "red" if level in ("unhandled", "error", "fatal") else "yellow"),
        (_plain(mechanism.get("type") or event.get("logger")), ""),
        (f"in {name}" if name else "", ""),
    )


def _title(value: Payload) -> str:
    kind, text = _plain(value.get("type")), _plain(value.get("value"))
    return ": ".join(part for part in (kind, text) if part) or "(no type)"


def _message(event: Payload) -> str:
    entry = _mapping(event.get("logentry"))
    texts = (entry.get("formatted"), entry.get("message"), event.get("message"))
    return next((text for text in map(_plain, texts) if text), "(no message)")


def _relation(value: Payload) -> str:
    source = _plain(_mapping(value.get("mechanism")).get("source"))
    if source.startswith("exceptions["):
        return "in the group"
    return "while handling" if source == "__context__" else "caused by"


def _frames(value: Payload) -> Iterator[Text]:
    """The application's; where there is none, the innermost of all."""
    frames = _items(_mapping(value.get("stacktrace")).get("frames"))
    own = [frame for frame in frames if frame.get("in_app") is True]
    shown = own or frames[-1:]
    if len(shown) > MAX_FRAMES:
        yield _line((f"    and {len(shown) - MAX_FRAMES} more frames further out", "dim"))
    for frame in shown[-MAX_FRAMES:]:
        line = _number(frame.get("lineno"))
        file = _plain(frame.get("filename") or frame.get("module")) or "(no file)"
        where = f"{file}:{line:.0f}" if line is not None else file
        yield _line((f"    {where}", "cyan" if own else "dim"), (_plain(frame.get("function")), ""))
        if code := _plain(frame.get("context_line")):
            yield _line((f"      {code}", "bold" if own else "dim"))
    variables = _mapping(shown[-1].get("vars")) if shown else {}
    if variables:
        yield _line((f"      {', '.join(_pairs(variables))}", "dim"))


# -- what both have -------------------------------------------------------------------------------


def _whereabouts(event: Payload, note: str = "") -> Iterator[Text]:
    """Trace, request, tags and user: a line for each that there is."""
    trace = _trace(event)
    ids = [(name, _plain(trace.get(f"{name}_id"))) for name in ("trace", "span")]
    named = [f"{name} {value}" for name, value in ids if value]
    if named:
        yield _line((f"  {'  '.join(named)}", "dim"), (note, "dim"))
    request = _mapping(event.get("request"))
    method, url = _plain(request.get("method")), _plain(request.get("url"))
    if method or url:
        query = _plain(request.get("query_string"))
        response = _mapping(_mapping(event.get("contexts")).get("response"))
        target = f"{url}?{query}" if query else url
        yield _line((f"  {method} {target}", ""), (_plain(response.get("status_code")), ""))
    pairs = [*_pairs(_mapping(event.get("tags"))), *_pairs(_mapping(event.get("user")), "user.")]
    if pairs:
        yield _line((f"  {'  '.join(pairs)}", "magenta"))


def _pairs(mapping: Payload, prefix: str = "") -> list[str]:
    return [f"{prefix}{_plain(key)}={_plain(value)}" for key, value in mapping.items()]


def _line(*parts: tuple[str, str], gap: str = "  ") -> Text:
    """One line, cut where the room ends; parts without text are left out."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        if text:
            line.append(gap if line else "").append(text, style)
    return line


def _colour_of(status: str) -> str:
    return {"ok": "green", "cancelled": "yellow", "no status": "dim"}.get(status, "red")


def _duration(span: Payload) -> str:
    times = _times(span)
    if times is None:
        return "?"
    seconds = times[1] - times[0]
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1_000:.1f} ms" if seconds >= 0.01 else f"{seconds * 1_000:.2f} ms"


# -- reading a payload that may hold anything -----------------------------------------------------


def _plain(value: object) -> str:
    """The value as one line of printable text."""
    if value is None:
        return ""
    text = " ".join(str(value)[:_LONGEST].split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _mapping(value: object) -> Payload:
    return value if isinstance(value, Mapping) else {}


def _items(interface: object) -> list[Payload]:
    """The mappings of a list, or of an interface's `values`."""
    values = interface.get("values") if isinstance(interface, Mapping) else interface
    return [one for one in values if isinstance(one, Mapping)] if isinstance(values, list) else []


def _trace(event: Payload) -> Payload:
    return _mapping(_mapping(event.get("contexts")).get("trace"))


def _times(span: Payload) -> tuple[float, float] | None:
    start, end = _number(span.get("start_timestamp")), _number(span.get("timestamp"))
    return (start, max(start, end)) if start is not None and end is not None else None


def _start(span: Payload) -> float:
    start = _number(span.get("start_timestamp"))
    return math.inf if start is None else start


def _number(value: object) -> float | None:
    """A finite number; sentry-sdk writes times as ISO 8601 text."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


if TYPE_CHECKING:
    _: type[Exporter] = ConsoleExporter
