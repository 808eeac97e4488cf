"""Text for the wire."""

from __future__ import annotations

from typing import Final

MAX_TEXT: Final = 8_192
"""Characters of one attribute or description (Relay's limit for a log entry or exception value)."""


def to_text(value: str, limit: int = MAX_TEXT) -> str:
    """Text that can be encoded as UTF-8, of at most *limit* characters."""
    return encodable(value[:limit])


def encodable(text: str) -> str:
    """The text with a question mark for each half of a pair that UTF-8 does not know."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
