from __future__ import annotations

import re

import pytest

from otel_sentry_asgi._patterns import later


def test_a_pattern_is_compiled_when_it_is_first_used() -> None:
    pattern = later("(")
    with pytest.raises(re.error):
        pattern.match("a")


def test_it_does_what_the_compiled_one_does() -> None:
    pattern = later("a+", re.IGNORECASE)
    for _ in range(2):
        assert pattern.sub("b", "xAa") == "xb"
        assert pattern.fullmatch("AA")
    assert pattern.pattern == "a+"
