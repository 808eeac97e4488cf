"""`python -m otel_sentry_asgi COMMAND`."""

from __future__ import annotations

import argparse

from otel_sentry_asgi._cli import policy

_COMMANDS = (policy,)


def main() -> int:
    """Run the command that the arguments name; what it returns is the exit status."""
    parser = argparse.ArgumentParser(prog="python -m otel_sentry_asgi")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    arguments = parser.parse_args()
    return int(arguments.func(arguments) or 0)


if __name__ == "__main__":
    raise SystemExit(main())
