"""Python's traceback text, parsed into exceptions with frames.

For exceptions of which there is only the text that OTel keeps (`exception.stacktrace`). The text is
what `traceback.format_exception` of Python 3.10 to 3.14 prints: exceptions joined by one of two
sentences, oldest first; groups drawn with `|` and `+`; below each `File` line the source, marker
lines and `[Previous line repeated ...]`. Line by line and total: what is not understood is skipped,
and text that was cut anywhere gives the frames that are whole.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from otel_sentry_asgi._patterns import later

MAX_FRAMES: Final = 250
"""Frames kept of one exception, half from each end (Relay's limit)."""

_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"
_LINKS: Final = {_CAUSE: "__cause__", _CONTEXT: "__context__"}

_FRAME: Final = later(r'  File "(?P<file>.*)", line (?P<line>\d+)(?:, in (?P<function>.+))?$')
_REPEATED: Final = later(r"  \[Previous line repeated (\d+) more times?\]$")
_HEADER: Final = later(r"(?:\+ )?(?:Exception Group )?Traceback \(most recent call last\):$")
_TYPE: Final = later(r"(?P<type>[A-Za-z_][\w.<>]*)(?:: (?P<value>.*))?$", re.DOTALL)
_GROUP: Final = "  + Exception Group Traceback"
_NUMBERED: Final = later(r"\+(?:-\+)?-+ (?:\d+|\.\.\.) -+$")


class Frame(NamedTuple):
    """A frame; the function is None for the place of a syntax error."""

    file: str
    line: int
    function: str | None


class ParsedException:
    """One exception of the text."""

    __slots__ = ("frames", "linked_by", "members", "type", "value")

    def __init__(self, type: str, value: str = "", linked_by: str | None = None) -> None:
        self.type = type
        self.value = value
        self.frames: list[Frame] = []
        self.linked_by = linked_by
        """How the *previous* exception hangs on this one: `__cause__` or `__context__`."""
        self.members: list[list[ParsedException]] = []
        """Of a group: the chain of each member, oldest first."""


def parse_traceback(text: str) -> list[ParsedException]:
    """The chain of exceptions, oldest first; empty if the text is no Python traceback."""
    lines = text.replace("\r\n", "\n").split("\n")
    if not any(_HEADER.match(line.lstrip(" ")) for line in lines):
        return []
    return _Reader(lines).chain(None)


class _Reader:
    """Recursive descent over the boxes: a margin is the column of the `|` that frames the lines."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def chain(self, margin: int | None) -> list[ParsedException]:
        """The exceptions from here to the end of the box (of the text, without a margin)."""
        found: list[ParsedException] = []
        block = _Block()
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if margin is None and line.startswith(_GROUP):
                block.finish(found)
                boxed = self._boxed_group()
                for first in boxed[:1]:
                    first.linked_by = block.link
                found += boxed
                block = _Block()
                continue
            text = _inside(line, margin)
            if text is None and line.startswith(" " * (margin or 0) + "+-+"):
                block.members = self._members((margin or 0) + 2)
                continue
            if text is None:
                break
            self._at += 1
            if text in _LINKS:
                block.finish(found)
                block = _Block(link=_LINKS[text])
            else:
                block.lines.append(text)
        block.finish(found)
        return found

    def _boxed_group(self) -> list[ParsedException]:
        self._lines[self._at] = self._lines[self._at].replace("  + ", "  | ", 1)
        return self.chain(2)

    def _members(self, margin: int) -> list[list[ParsedException]]:
        members: list[list[ParsedException]] = []
        while self._at < len(self._lines):
            rule = self._lines[self._at].strip(" ")
            if not rule.startswith("+-"):
                break
            self._at += 1
            if not _NUMBERED.match(rule):
                break
            members.append(self.chain(margin))
        return [member for member in members if member]


class _Block:
    """The lines of one exception, and what is known of it besides."""

    __slots__ = ("lines", "link", "members")

    def __init__(self, link: str | None = None) -> None:
        self.link = link
        self.lines: list[str] = []
        self.members: list[list[ParsedException]] = []

    def finish(self, found: list[ParsedException]) -> None:
        """Add the exception that the lines tell of, if any."""
        frames: list[Frame] = []
        headline: list[str] = []
        for line in self.lines:
            frame, repeated = _FRAME.match(line), _REPEATED.match(line)
            if headline:
                headline.append(line)
            elif frame is not None:
                frames.append(Frame(frame["file"], int(frame["line"]), frame["function"]))
            elif repeated is not None and frames:
                frames += [frames[-1]] * min(int(repeated[1][:9]), 2 * MAX_FRAMES)
            elif not _HEADER.match(line) and not line.startswith(" ") and _TYPE.match(line):
                headline.append(line)
        if not frames and not headline:
            return
        told = _TYPE.match("\n".join(headline).rstrip("\n")) if headline else None
        kind, value = (told["type"], told["value"] or "") if told else ("", "")
        parsed = ParsedException(kind, value, self.link)
        parsed.frames = _within_limit(frames)
        parsed.members = self.members
        found.append(parsed)


def _inside(line: str, margin: int | None) -> str | None:
    """The line without its margin; None if it is not in the box."""
    if margin is None:
        return line
    box = " " * margin + "|"
    return line[margin + 2 :] if line.startswith(box) else None


def _within_limit(frames: list[Frame]) -> list[Frame]:
    if len(frames) <= MAX_FRAMES:
        return frames
    return frames[: MAX_FRAMES // 2] + frames[-MAX_FRAMES // 2 :]
