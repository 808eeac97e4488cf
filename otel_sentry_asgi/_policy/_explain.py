"""The policy in words: its table, and what happens to one attribute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from otel_sentry_asgi._policy._attributes import TABLE, Category, Row
from otel_sentry_asgi._policy._decide import Rule, rule_of
from otel_sentry_asgi._policy._policy import Policy

_HEADERS: Final = ("accept", "authorization", "x-forwarded-for")


def outcomes(row: Row, policy: Policy) -> str:
    """What the policy does with the attributes of a row."""
    names = [f"{name}{{name}}" if name.endswith(".") else name for name in row.names]
    if row.category is Category.HEADER:
        names = [f"{row.names[0]}{header}" for header in _HEADERS]
    elif row.category is Category.TERMS:
        names = ["shop.note", "shop.password"]
    done = list(dict.fromkeys(rule_of(name, policy).does for name in names))
    return " / ".join(done)


def table(policies: Mapping[str, Policy]) -> list[list[str]]:
    """A line for each row: its names, what governs it, and what each policy does."""
    return [
        [
            " ".join(f"{name}*" if name.endswith(".") else name for name in row.names),
            row.category.value,
            *(outcomes(row, policy) for policy in policies.values()),
        ]
        for row in TABLE
    ]


def explain(key: str, value: str, policy: Policy) -> tuple[Rule, dict[str, Any]]:
    """The rule for an attribute, and what is left of it."""
    return rule_of(key, policy), policy.attributes({key: value})


def markdown(policies: Mapping[str, Policy]) -> str:
    """The page of the documentation."""
    lines = [
        "# What happens to each attribute",
        "",
        "Printed by `python -m otel_sentry_asgi policy --markdown` from the table that the code",
        "acts on. `send_default_pii` sets all that `data_collection` sets one by one. What is",
        "between slashes depends on the name: of headers, in this order, one that says nothing,",
        "one with credentials and one with the client's address; of keys without a row, one",
        "without and one with a sensitive term.",
        "",
    ]
    head = ["attributes", "governed by", *policies]
    lines += [_line(head), _line(["---"] * len(head))]
    for cells in table(policies):
        names = " ".join(f"`{name}`" for name in cells[0].split())
        lines.append(_line([names, *cells[1:]]))
    lines += ["", "## Why", ""]
    lines += [f"* `{row.names[0]}` …: {row.why}" for row in TABLE]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
