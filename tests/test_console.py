"""What the console exporter draws, and that nothing in a payload can make it do anything else."""

import io
import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from otel_sentry_asgi._policy import Policy
from otel_sentry_asgi.export import Exporter, Origin
from otel_sentry_exporters import console
from otel_sentry_exporters.console import MAX_FRAMES, MAX_ROWS, ConsoleExporter, issue, waterfall

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
ROOT = "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich obeys these for any file."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def drawn(renderable: RenderableType, *, width: int = 80, **options: Any) -> str:
    """The lines as they are printed, without the blanks at their ends."""
    file = io.StringIO()
    Console(file=file, width=width, _environ={}, **options).print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def lines(text: str) -> str:
    return dedent(text).strip("\n")


def make_span(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "span_id": f"{number:016x}",
        "parent_span_id": ROOT,
        "status": "ok",
        "start_timestamp": 100.25,
        "timestamp": 100.5,
        **fields,
    }


def make_transaction(*spans: Any, trace: dict[str, Any] | None = None, **fields: Any) -> Any:
    context = {"trace_id": TRACE_ID, "span_id": ROOT, "op": "http.server", "status": "ok"}
    return {
        "type": "transaction",
        "transaction": "GET /orders/{id}",
        "transaction_info": {"source": "route"},
        "start_timestamp": 100.0,
        "timestamp": 101.0,
        "contexts": {"trace": {**context, **(trace or {})}},
        "spans": list(spans),
        **fields,
    }


def make_frame(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "filename": "shop/app.py",
        "lineno": number,
        "function": f"step_{number}",
        "in_app": True,
        **fields,
    }


def make_exception(kind: str, *frames: Any, **mechanism: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "value": "no",
        "mechanism": {"type": "auto.http.otel.asgi", "handled": False, **mechanism},
        "stacktrace": {"frames": list(frames)},
    }


class TestWaterfall:
    def test_a_request_with_spans(self) -> None:
        transaction = make_transaction(
            make_span(2, op="db", description="SELECT 1", parent_span_id=f"{1:016x}"),
            make_span(3, description="charge", start_timestamp=100.5, timestamp=101.0),
            make_span(1, op="http.client", description="GET http://bank/rates", timestamp=100.75),
            request={
                "method": "GET",
                "url": "http://shop/orders/7",
                "query_string": "token=[Filtered]",
            },
            tags={"tier": "gold"},
            user={"id": "7"},
        )
        transaction["contexts"]["response"] = {"status_code": 200}
        transaction["spans"][1]["status"] = "internal_error"
        assert drawn(waterfall(transaction)) == lines("""
            GET /orders/{id}  http.server  ok  1.00 s
              trace 4bf92f3577b34da6a3ce929d0e0e4736  span 00f067aa0ba902b7  source route
              GET http://shop/orders/7?token=[Filtered]  200
              tier=gold  user.id=7
              http.server GET /orders/{id}              ━━━━━━━━━━━━━━━━━━━━━━━━━━━   1.00 s
                http.client GET http://bank/rates             ━━━━━━━━━━━━━━        500.0 ms
                  db SELECT 1                                 ━━━━━━━━              250.0 ms
                span charge                                          ━━━━━━━━━━━━━━ 500.0 ms
            """)

    def test_it_is_no_wider_than_it_may_be(self) -> None:
        transaction = make_transaction(
            make_span(1, op="db", description="SELECT " + "x, " * 200), transaction="/" + "x" * 200
        )
        for width in (20, 40, 80, 200):
            assert max(map(len, drawn(waterfall(transaction), width=width).splitlines())) <= width

    def test_a_follow_up_and_lost_spans_are_marked(self) -> None:
        transaction = make_transaction(
            trace={"data": {"sentry.parent_span_already_sent": True}}, _dropped_spans=12
        )
        assert drawn(waterfall(transaction)).splitlines()[-2:] == [
            "  12 spans were dropped",
            "  follow-up: ended after the transaction of its request was sent",
        ]

    def test_more_spans_than_rows(self) -> None:
        spans = [make_span(number, description=f"step {number}") for number in range(1, 101)]
        text = drawn(waterfall(make_transaction(*spans)))
        assert text.endswith(f"\n  and {101 - MAX_ROWS} more spans")
        assert f"step {MAX_ROWS - 1} " in text
        assert f"step {MAX_ROWS} " not in text

    def test_every_span_is_there_once_whatever_its_parent(self) -> None:
        text = drawn(
            waterfall(
                make_transaction(
                    make_span(1, description="orphan", parent_span_id="of another process"),
                    make_span(2, description="ring a", parent_span_id=f"{3:016x}"),
                    make_span(3, description="ring b", parent_span_id=f"{2:016x}"),
                    make_span(4, description="own parent", parent_span_id=f"{4:016x}"),
                    make_span(5, description="twin a"),
                    make_span(5, description="twin b"),
                    make_span(6, description="below twins", parent_span_id=f"{5:016x}"),
                    make_span(7, description="no parent", parent_span_id=None),
                )
            )
        )
        names = ("orphan", "ring a", "ring b", "own parent", "twin a", "twin b", "below", "no par")
        assert [text.count(name) for name in names] == [1] * len(names)

    def test_a_deep_tree_keeps_its_names(self) -> None:
        spans = [
            make_span(number, op="db", parent_span_id=f"{number - 1:016x}" if number > 1 else ROOT)
            for number in range(1, 50)
        ]
        assert drawn(waterfall(make_transaction(*spans))).count(" db ") == 49

    def test_times_that_are_missing_or_odd(self) -> None:
        transaction = make_transaction(
            make_span(1, description="no end", timestamp=None),
            make_span(2, description="no start", start_timestamp="soon"),
            make_span(3, description="backwards", start_timestamp=100.5, timestamp=100.0),
            make_span(4, description="infinite", timestamp=math.inf),
            make_span(5, description="enormous", timestamp=10**400),
            make_span(6, description="a truth", timestamp=True),
            make_span(7, description="outlasts", timestamp=102.0),
            start_timestamp="1970-01-01T00:01:40.000000Z",
        )
        assert drawn(waterfall(transaction), width=60) == lines("""
            GET /orders/{id}  http.server  ok  1.00 s
              trace 4bf92f3577b34da6a3ce929d0e0e4736  span 00f067aa0ba9…
              http.server GET /orders/{id}  ━━━━━━━━━━            1.00 s
                span no end                                            ?
                span infinite                                          ?
                span enormous                                          ?
                span a truth                                           ?
                span outlasts                 ━━━━━━━━━━━━━━━━━━  1.75 s
                span backwards                   ━               0.00 ms
                span no start                                          ?
            """)

    def test_a_transaction_that_took_no_time(self) -> None:
        assert "━" * 28 + " 0.00 ms" in drawn(waterfall(make_transaction(timestamp=100.0)))

    def test_nothing_at_all(self) -> None:
        assert drawn(waterfall({})) == lines("""
            (no name)  no status  ?
              span                                                                         ?
            """)

    def test_colours_only_where_they_are_wanted(self) -> None:
        failed = make_transaction(trace={"status": "internal_error"})
        assert "\x1b[" not in drawn(waterfall(failed))
        assert "\x1b[31minternal_error" in drawn(waterfall(failed), force_terminal=True)


class TestIssue:
    def test_an_unhandled_exception_with_its_cause(self) -> None:
        event = {
            "level": "error",
            "transaction": "POST /orders",
            "exception": {
                "values": [
                    make_exception(
                        "TimeoutError",
                        make_frame(1, in_app=False),
                        make_frame(2, in_app=False, context_line="  raise TimeoutError  "),
                    ),
                    make_exception(
                        "PaymentError",
                        make_frame(3, in_app=False),
                        make_frame(4, context_line="    charge(order)"),
                        make_frame(5, context_line="    raise", vars={"cents": "7", "card": "''"}),
                    ),
                ]
            },
            "contexts": {"trace": {"trace_id": TRACE_ID, "span_id": ROOT}},
            "request": {"method": "POST", "url": "http://shop/orders"},
            "tags": {"tier": "gold"},
        }
        assert drawn(issue(event)) == lines("""
            PaymentError: no
              unhandled  auto.http.otel.asgi  in POST /orders
              trace 4bf92f3577b34da6a3ce929d0e0e4736  span 00f067aa0ba902b7
              POST http://shop/orders
              tier=gold
                shop/app.py:4  step_4
                  charge(order)
                shop/app.py:5  step_5
                  raise
                  cents=7, card=''
              caused by  TimeoutError: no
                shop/app.py:2  step_2
                  raise TimeoutError
            """)

    def test_how_exceptions_hang_together(self) -> None:
        group = make_exception("ExceptionGroup", handled=True)
        values = [
            make_exception("KeyError", source="exceptions[1]"),
            make_exception("OSError", source="__context__"),
            make_exception("ValueError", source="__cause__"),
            group,
        ]
        assert drawn(issue({"exception": values})) == lines("""
            ExceptionGroup: no
              handled  auto.http.otel.asgi
              caused by  ValueError: no
              while handling  OSError: no
              in the group  KeyError: no
            """)

    def test_the_innermost_frames_are_drawn(self) -> None:
        frames = [make_frame(number) for number in range(1, MAX_FRAMES + 3)]
        text = drawn(issue({"exception": {"values": [make_exception("E", *frames)]}}))
        assert "    and 2 more frames further out\n    shop/app.py:3  step_3\n" in text
        assert text.endswith(f"step_{MAX_FRAMES + 2}")

    @pytest.mark.parametrize(
        "event",
        [
            {"logentry": {"message": "no %s", "formatted": "no rate"}},
            {"logentry": {"message": "no rate"}},
            {"message": "no rate", "exception": {"values": []}},
        ],
    )
    def test_a_message(self, event: dict[str, Any]) -> None:
        assert drawn(issue({**event, "level": "warning", "logger": "shop"})) == lines("""
            no rate
              warning  shop
            """)

    def test_nothing_at_all(self) -> None:
        assert drawn(issue({})) == "(no message)\n  error"
        assert drawn(issue({"exception": [{}]})) == "(no type)\n  error"
        frameless: dict[str, Any] = {"type": "E", "stacktrace": {"frames": [{}]}}
        assert drawn(issue({"exception": [frameless]})) == "E\n  error\n    (no file)"


HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\u202e[bold red]x[/nope] :boom: \ud800\x9b31m"


class TestHostileText:
    """Names, statements and messages come from whoever sends requests."""

    def test_no_control_character_and_no_line_of_its_own_reaches_the_terminal(self) -> None:
        everywhere = make_transaction(
            make_span(1, op=HOSTILE, description=HOSTILE, status=HOSTILE),
            transaction=HOSTILE,
            transaction_info={"source": HOSTILE},
            trace={"op": HOSTILE, "status": HOSTILE, "trace_id": HOSTILE},
            request={"method": HOSTILE, "url": HOSTILE, "query_string": HOSTILE},
            tags={HOSTILE: HOSTILE},
            user={HOSTILE: HOSTILE},
        )
        frame = dict.fromkeys(("filename", "function", "context_line"), HOSTILE)
        broken = make_exception(HOSTILE, {**frame, "in_app": True, "vars": {HOSTILE: HOSTILE}})
        broken.update(value=HOSTILE, mechanism={"type": HOSTILE})
        drawings = {waterfall(everywhere): 6, issue({"exception": [broken]}): 5}
        for renderable, height in drawings.items():
            text = drawn(renderable, width=10_000)
            assert "[bold red]x[/nope] :boom:" in text
            assert all(character.isprintable() for character in text.replace("\n", ""))
            assert len(text.split("\n")) == height

    def test_markup_is_text(self) -> None:
        text = drawn(waterfall(make_transaction(transaction="[red]GET[/red] [link=x]y[/link]")))
        assert text.startswith("[red]GET[/red] [link=x]y[/link]  http.server")


KNOWN = """
    contexts trace trace_id span_id parent_span_id op status data spans start_timestamp timestamp
    description transaction transaction_info source request method url query_string response
    status_code tags user _dropped_spans exception values type value mechanism handled stacktrace
    frames in_app filename lineno function context_line vars level logentry formatted message
"""
KEYS = st.sampled_from(KNOWN.split())
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(ROOT), st.just(100.0)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(KEYS, JSON))
def test_anything_can_be_drawn(payload: dict[str, Any]) -> None:
    drawn(waterfall(payload))
    drawn(issue(payload))


class Ascii(io.StringIO):
    """A terminal of old."""

    encoding = "ascii"

    def write(self, text: str) -> int:
        return super().write(text.encode("ascii").decode())


class TestExporter:
    def test_it_draws_what_it_is_given(self) -> None:
        file = io.StringIO()
        exporter: Exporter = ConsoleExporter(file, width=70)
        exporter.export(Policy().clean(make_transaction()), Origin())
        exporter.export(Policy().clean(make_transaction()), Origin())
        assert file.getvalue().count("GET /orders/{id}  http.server  ok  1.00 s\n") == 2
        assert max(map(len, file.getvalue().splitlines())) == 70
        assert exporter.force_flush(1.0)
        exporter.shutdown()
        assert not file.closed

    def test_what_the_file_cannot_encode_is_replaced(self) -> None:
        file = Ascii()
        transaction = make_transaction(transaction="GET /caf\N{LATIN SMALL LETTER E WITH ACUTE}")
        ConsoleExporter(file, width=70).export(Policy().clean(transaction), Origin())
        assert "GET /caf?  http.server" in file.getvalue()
        assert "=====" in file.getvalue()

    def test_standard_output_is_the_default(self, capsys: pytest.CaptureFixture[str]) -> None:
        ConsoleExporter().export(Policy().clean(make_transaction()), Origin())
        assert capsys.readouterr().out.startswith("GET /orders/{id}")


def test_without_rich_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert console.__file__ is not None
    spec = spec_from_file_location("console_without_rich", console.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"otel-sentry-asgi\[console\]"):
        spec.loader.exec_module(module_from_spec(spec))
