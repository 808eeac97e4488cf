"""Frames parsed from the text are the frames of the live exception."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sentry_asgi._translate.traceback import MAX_FRAMES, ParsedException, parse_traceback

if sys.version_info < (3, 11):
    ExceptionGroup = import_module("exceptiongroup").ExceptionGroup


class Custom(Exception):
    """With a module in its printed name."""


def recurse(depth: int, then: Callable[[], None]) -> None:
    if depth:
        recurse(depth - 1, then)
    else:
        then()


def alternate(depth: int, then: Callable[[], None]) -> None:
    if depth:
        other = recurse if depth % 2 else alternate
        other(depth - 1, then)
    else:
        then()


KINDS: list[Callable[[str], Exception]] = [
    ValueError,
    Custom,
    lambda text: OSError(2, text),
    lambda text: KeyError(text),
    lambda _: RuntimeError(),
    lambda text: RuntimeError(f"{text}\n  indented\n\nafter a blank line"),
]

plans = st.recursive(
    st.none(),
    lambda inner: st.tuples(
        st.sampled_from(["cause", "context", "hidden", "plain"]),
        st.sampled_from(KINDS),
        st.integers(0, 12),
        st.sampled_from([recurse, alternate]),
        inner,
        st.lists(inner, max_size=2),
    ),
    max_leaves=5,
)


def raised(plan: Any) -> Exception:
    """The exception that a plan describes, raised and caught."""
    if plan is None:
        return raised(("plain", ValueError, 0, recurse, None, []))
    link, kind, depth, climb, inner, members = plan
    error = kind("message: with a colon")
    if members:
        error = ExceptionGroup("group", [raised(member) for member in members])

    def raise_it() -> None:
        if link == "plain" or inner is None:
            raise error
        if link == "cause":
            raise error from raised(inner)
        try:
            raise raised(inner)
        except Exception:  # noqa: BLE001
            if link == "hidden":
                raise error from None
            raise error  # noqa: B904

    try:
        climb(depth, raise_it)
    except Exception as caught:  # noqa: BLE001
        return caught
    raise AssertionError


def live(error: BaseException) -> list[ParsedException]:
    """What the text of *error* should parse to."""
    before: BaseException | None = error.__cause__
    link = "__cause__"
    if before is None and not error.__suppress_context__:
        before, link = error.__context__, "__context__"
    chain = live(before) if before is not None else []
    lines = "".join(traceback.format_exception_only(type(error), error)).rstrip("\n")
    kind, _, value = lines.partition(": ")
    frames = [
        (frame.filename, frame.lineno, frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    parsed = ParsedException(kind, value, linked_by=link if before is not None else None)
    parsed.frames = frames  # type: ignore[assignment]
    nested = getattr(error, "exceptions", None)
    if isinstance(nested, tuple):
        parsed.members = [live(member) for member in nested]
    return [*chain, parsed]


def comparable(chain: list[ParsedException]) -> list[Any]:
    return [
        (
            one.type,
            one.value,
            [
                (frame.file, frame.line, frame.function) if hasattr(frame, "file") else frame
                for frame in one.frames
            ],
            one.linked_by,
            [comparable(member) for member in one.members],
        )
        for one in chain
    ]


@given(plans)
def test_the_text_of_any_exception_parses_to_its_frames(plan: Any) -> None:
    error = raised(plan)

    parsed = parse_traceback("".join(traceback.format_exception(error)))

    assert comparable(parsed) == comparable(live(error))


@given(plans, st.integers(0, 6_000))
def test_text_that_was_cut_gives_the_frames_that_are_whole(plan: Any, length: int) -> None:
    error = raised(plan)
    text = "".join(traceback.format_exception(error))
    everything = [frame for one in _flat(parse_traceback(text)) for frame in one.frames]

    cut = [frame for one in _flat(parse_traceback(text[:length])) for frame in one.frames]

    # The last `line 1234` or function name may be cut in its middle.
    assert [(f.file, f.line) for f in cut][:-1] == [(f.file, f.line) for f in everything][
        : len(cut)
    ][:-1]


@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    parse_traceback(text)
    parse_traceback("Traceback (most recent call last):\n" + text)


def test_a_deep_recursion_keeps_both_ends() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    text = "".join(traceback.format_exception(caught.value))

    (parsed,) = parse_traceback(text)

    assert len(parsed.frames) == MAX_FRAMES
    assert parsed.frames[-1].function == "endless"


def test_a_syntax_error_has_the_place_as_its_last_frame() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("1 +", "<told>", "exec")

    (parsed,) = parse_traceback("".join(traceback.format_exception(caught.value)))

    assert (parsed.type, parsed.value) == ("SyntaxError", "invalid syntax")
    assert (parsed.frames[-1].file, parsed.frames[-1].line) == ("<told>", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Error: x\n    at Object.<anonymous> (/app/index.js:1:7)\n    at Module._compile (node:1)",
        "java.lang.IllegalStateException: x\n\tat com.example.Main.main(Main.java:5)",
        "goroutine 1 [running]:\nmain.main()\n\t/tmp/main.go:4 +0x39",
    ],
)
def test_traces_of_other_languages_are_not_parsed(text: str) -> None:
    assert parse_traceback(text) == []


def _flat(chain: list[ParsedException]) -> list[ParsedException]:
    found = []
    for one in chain:
        found.append(one)
        for member in one.members:
            found += _flat(member)
    return found
