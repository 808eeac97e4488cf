"""What the demo shows on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from examples.demo.private import PRIVATE, PUBLIC, Planted, in_otlp, in_sentry
from examples.demo.receivers import Receivers
from examples.demo.traffic import Reply
from examples.demo.verdict import Arrived, Event, Traffic, handled, hottest, is_follow_up, title_of
from otel_sentry_exporters.console import issue, waterfall

_UNREAD: Final = Text("not read", "dim")


def show(console: Console, traffic: Traffic, arrived: Arrived, receivers: Receivers) -> None:
    """Everything but the verdict."""
    _heading(console, "Traffic, and what each side has under the trace id of the answer")
    console.print(_overview(traffic, arrived))
    if arrived.readable:
        told = "OTLP also has the `http send` and `http receive` spans that Sentry is spared."
        console.print(Text(told, "dim"))
    if arrived.readable:
        for scenario, replies in traffic:
            if scenario.show:
                _heading(console, f"In Sentry: {scenario.name}")
                _details(console, arrived, replies)
            if scenario.hot:
                _heading(console, f"In Sentry: the hottest functions of: {scenario.name}")
                console.print(_hottest(arrived, replies))
        _heading(console, "In Sentry: every issue, and the innermost of the shop's frames")
        console.print(_issues(traffic, arrived))
    _heading(console, "Private values that were sent in, and where they came out")
    console.print(_private(arrived, receivers))
    console.print(_searched(arrived, receivers))


def verdict(console: Console, wrong: Iterable[str], *, readable: bool) -> None:
    """The last word."""
    console.print()
    problems = [Text(f"  {problem}") for problem in wrong]
    if problems:
        console.print(Text("Not as it should be:", "bold red"), *problems, sep="\n")
    elif readable:
        told = "All there, with the same trace ids on both sides; nothing private in Sentry."
        console.print(Text(told, "bold green"))
    else:
        told = "All there on the OTLP side. Look for the same trace ids in your Sentry."
        console.print(Text(told, "bold green"))


def _heading(console: Console, text: str) -> None:
    console.print()
    console.rule(Text(text, style="bold"), align="left", style="dim")


def _overview(traffic: Traffic, arrived: Arrived) -> Table:
    in_sentry = (("transactions", 12), ("issues", 6)) if arrived.readable else ()
    length = 9 if arrived.readable else 32
    table = _table(("code", 4), *in_sentry, ("OTLP spans", 10), ("trace", length))
    for scenario, replies in traffic:
        spans = sum(len(arrived.otlp(reply.trace_id)) for reply in replies)
        table.add_row(
            scenario.name,
            replies[0].answer,
            *(_in_sentry(replies, arrived) if arrived.readable else ()),
            str(spans) if spans else Text("unsampled", "dim"),
            _cut(replies[0].trace_id, length) if len(replies) == 1 else f"{len(replies)} of them",
        )
    return table


def _in_sentry(replies: Sequence[Reply], arrived: Arrived) -> tuple[Text, Text]:
    transactions = [one for reply in replies for one in arrived.transactions(reply.trace_id)]
    issues = [one for reply in replies for one in arrived.issues(reply.trace_id)]
    late = sum(map(is_follow_up, transactions))
    first = Text(str(len(transactions) - late or "-"), "green")
    if late:
        first.append(f" + {late} late", "yellow")
    return first, Text(str(len(issues) or "-"), "red" if issues else "dim")


def _details(console: Console, arrived: Arrived, replies: Sequence[Reply]) -> None:
    drawn: list[RenderableType] = []
    for reply in replies:
        drawn.extend(map(waterfall, arrived.transactions(reply.trace_id)))
        drawn.extend(map(issue, arrived.issues(reply.trace_id)))
    for number, one in enumerate(drawn):
        if number:
            console.print()
        console.print(one)


def _hottest(arrived: Arrived, replies: Sequence[Reply]) -> Table:
    table = _table(("samples", 7), ("share", 5))
    for reply in replies:
        for profile in arrived.profiles(reply.trace_id):
            met = hottest(profile)
            total = sum(number for _, number in met)
            for function, number in met[:3]:
                table.add_row(function, str(number), f"{number / total:.0%}")
    return table


def _issues(traffic: Traffic, arrived: Arrived) -> Table:
    table = _table(("handled", 7), ("frame", 28))
    for _, replies in traffic:
        for event in arrived.issues(replies[0].trace_id):
            more = f", {len(replies)} of them" if len(replies) > 1 else ""
            table.add_row(title_of(event) + more, _how(event), _frame(event))
    return table


def _how(event: Event) -> Text:
    by = handled(event)
    if by is None:
        return Text(str(event.get("level")), "yellow")
    return Text("yes", "yellow") if by else Text("no", "red")


def _frame(event: Event) -> str:
    values = (event.get("exception") or {}).get("values") or [{}]
    frames = (values[-1].get("stacktrace") or {}).get("frames") or []
    for frame in reversed(frames):
        if frame.get("in_app"):
            return f"{frame['filename'].rpartition('/')[2]}:{frame['lineno']} {frame['function']}"
    return "-"


def _private(arrived: Arrived, receivers: Receivers) -> Table:
    table = _table(("value", 13), ("in Sentry", 9), ("in OTLP, where nothing is filtered", 35))
    for planted in (*PRIVATE, PUBLIC):
        table.add_row(
            planted.way,
            planted.value,
            _out(planted, arrived) if arrived.readable else _UNREAD,
            ", ".join(_last_part(key) for key in sorted(in_otlp(planted, receivers.otlp))) or "-",
        )
    return table


def _out(planted: Planted, arrived: Arrived) -> Text:
    number = sum(in_sentry(planted, arrived.items).values())
    colour = "" if planted is PUBLIC else "red" if number else "green"
    return Text(f"{number or 'nowhere'}{' items' if number else ''}", colour)


def _searched(arrived: Arrived, receivers: Receivers) -> Text:
    """What the table is about, and the one thing that has no trace: release health."""
    text = Text(style="dim")
    if arrived.readable:
        kinds: dict[str, int] = {}
        for item in arrived.items:
            kinds[item.type] = kinds.get(item.type, 0) + 1
        told = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        text.append("Searched in Sentry: every header and payload, whatever the type of the item\n")
        text.append(f"({told}).\n")
    size = len(receivers.otlp.raw()) // 1_000
    text.append(f"Searched in OTLP: all bytes of all requests ({size} kB).")
    sessions = _sessions(arrived)
    if sessions:
        told = ", ".join(f"{number} {state}" for state, number in sessions.items())
        text.append(f"\nRelease health of shop@1.4.0, from sessions: {told}.")
    return text


def _sessions(arrived: Arrived) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in arrived.items:
        for aggregate in item.body.get("aggregates") or () if item.type == "sessions" else ():
            for state in ("exited", "errored", "crashed"):
                counts[state] = counts.get(state, 0) + aggregate.get(state, 0)
    return counts


def _last_part(key: str) -> str:
    return key.removeprefix("http.request.")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _table(*columns: tuple[str, int]) -> Table:
    """A title and a width for each column but the first, which takes the room that is left."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for title, width in columns:
        table.add_column(title, width=width, no_wrap=True, overflow="ellipsis")
    return table
