"""`python -m otel_sentry_asgi SUBCOMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from otel_sentry_asgi._cli import doctor, policy

SUBCOMMANDS = (doctor, policy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m otel_sentry_asgi")
    subparsers = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    given = parser.parse_args(arguments)
    return int(given.func(given) or 0)


if __name__ == "__main__":
    sys.exit(main())
