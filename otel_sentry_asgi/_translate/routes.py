"""Path templates: which of those that are on offer names the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otel_sentry_asgi._patterns import later

# Path parts that look like an id: digits, a UUID, or a long run of hexadecimal digits.
_ID_PART: Final = later(r"/(?:[0-9]+|[0-9a-fA-F-]{16,36})(?=/|$)")
_METHOD_AND_REST: Final = later(r"[A-Z]+ +(?=/)")
# What a Django pattern has and a template has not: named groups, anchors, optional parts.
_NAMED_GROUP: Final = later(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)")
_PATTERN_SIGNS: Final = later(r"[?^$#]|\\[AbBdDsSwWzZ]")
_PLAIN: Final = later(r"/[A-Za-z0-9_{}<>:./-]*")


def template_of(route: object, path: str | None) -> str | None:
    """*route* as a path template, or None if it is really a path.

    Litestar's plugin writes the method and the raw path into `http.route`; Django's templates
    have no leading slash and may be regular expressions.
    """
    if not isinstance(route, str) or not route:
        return None
    if _PLAIN.fullmatch(route):
        template = route
    elif _METHOD_AND_REST.match(route):
        return None
    else:
        route = _PATTERN_SIGNS.sub("", _NAMED_GROUP.sub(r"{\1}", route))
        template = route if route.startswith("/") else f"/{route}"
    if template == path and _ID_PART.search(template):
        return None
    return template


def best_template(templates: Sequence[str], path: str | None, root_path: str) -> str | None:
    """Of several templates for one request the one that fits its whole path with the most
    parameters, else the first: a mounted application knows only its part, and some put the mount's
    concrete path before theirs. *root_path* is put before one that fits only what follows it."""
    if not templates:
        return None
    chosen = templates[0]
    if path is not None and any(one != chosen for one in templates):
        fitting = [one for one in templates if _fits(one, path)]
        chosen = max(fitting, key=_specific, default=chosen)
    if root_path and path is not None and not _fits(chosen, path):
        whole = f"{root_path}{chosen}"
        return whole if _fits(whole, path) else chosen
    return chosen


def _fits(template: str, path: str) -> bool:
    """Whether the template is one of the whole path. A parameter at its end may stand for several
    parts: Starlette's templates do not say which do."""
    parts, given = template.split("/"), path.split("/")
    if len(given) < len(parts) or (len(given) > len(parts) and not _is_parameter(parts[-1])):
        return False
    return all(
        part == value or _is_parameter(part) for part, value in zip(parts, given, strict=False)
    )


def _is_parameter(part: str) -> bool:
    return "{" in part or "<" in part


def _specific(template: str) -> tuple[int, int]:
    return template.count("{") + template.count("<"), template.count("/")
