"""Who receives: kent, Spotlight or a real Sentry on one side, oteltap on the other."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from examples.demo.spotlight import spotlight
from tests.support.kent import Item, Kent
from tests.support.otlp import OtlpReceiver


@dataclass(frozen=True, slots=True)
class Receivers:
    """Where the shop sends to, and how to see what arrived."""

    sentry: str
    """What the Sentry side is called."""
    dsn: str
    page: str | None
    """Where to browse."""
    items: Callable[[], list[Item]] | None
    """What the Sentry side has got; None where that cannot be read back."""
    otlp: OtlpReceiver


def is_on(environ: Mapping[str, str], name: str) -> bool:
    """Whether a switch in the environment is set to anything but nothing or 0."""
    return environ.get(name, "") not in ("", "0")


@contextmanager
def receivers(environ: Mapping[str, str]) -> Iterator[Receivers]:
    """Start what *environ* asks for, and end it with the block."""
    with ExitStack() as stack:
        otlp = stack.enter_context(OtlpReceiver())
        if dsn := environ.get("DSN"):
            yield Receivers("your Sentry", dsn, None, None, otlp)
        elif is_on(environ, "SPOTLIGHT"):
            viewer = stack.enter_context(spotlight())
            yield Receivers("Spotlight", viewer.dsn, viewer.url, viewer.items, otlp)
        else:
            kent = stack.enter_context(Kent())
            page = kent.dsn.replace("public@", "").removesuffix("1")
            yield Receivers("kent", kent.dsn, page, kent.items, otlp)
