"""Runs the demo: `python -m examples.demo`."""

import asyncio
import os
import signal
import sys
import time
from subprocess import CalledProcessError

import httpx
from rich.console import Console
from websockets.exceptions import WebSocketException

from examples.demo.receivers import Receivers, is_on, receivers
from examples.demo.report import show, verdict
from examples.demo.service import shop
from examples.demo.spotlight import NoNodeError
from examples.demo.traffic import drive
from examples.demo.verdict import Arrived, Traffic, leaks, problems
from tests.support._process import ChildProcess

DEADLINE = 15.0
"""Seconds within which everything must have arrived."""


def main() -> int:
    """The exit status: 0 if all is as it should be, 1 if not, 2 if it cannot be tried."""
    # So that what has been started is ended, also when somebody else ends this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False)
    try:
        with receivers(os.environ) as both, shop(both) as (process, url):
            return _run(console, both, process, url)
    except NoNodeError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    except (RuntimeError, CalledProcessError) as error:
        # A receiver or the shop did not start; the message ends with what it printed.
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(console: Console, both: Receivers, process: ChildProcess, url: str) -> int:
    console.print(f"shop on {url}, {both.sentry} and an OTLP receiver beside it ...")
    try:
        traffic = asyncio.run(drive(url))
    except (httpx.HTTPError, OSError, WebSocketException) as error:
        console.print(f"The shop does not answer: {error!r}", process.output(), markup=False)
        return 1
    _wait(traffic, both)
    keep = is_on(os.environ, "KEEP")
    if not keep:
        process.stop()
    status = _tell(console, traffic, both, process)
    if keep:
        _stay(console, both, url)
    return status


def _wait(traffic: Traffic, both: Receivers) -> None:
    """Until everything is there, or it is too late."""
    until = time.monotonic() + DEADLINE
    while problems(traffic, Arrived.now(both)) and time.monotonic() < until:
        time.sleep(0.1)


def _tell(console: Console, traffic: Traffic, both: Receivers, process: ChildProcess) -> int:
    arrived = Arrived.now(both)
    show(console, traffic, arrived, both)
    wrong = [*problems(traffic, arrived), *leaks(both, arrived)]
    if wrong:
        words = process.output().splitlines()[-20:]
        console.print("\nThe shop's last words:", *words, sep="\n", markup=False, soft_wrap=True)
    verdict(console, wrong, readable=arrived.readable)
    return 1 if wrong else 0


def _stay(console: Console, both: Receivers, url: str) -> None:
    """Until ctrl-C."""
    console.print(f"\nThe shop: {url}/docs")
    if both.page:
        console.print(f"{both.sentry}: {both.page}")
    console.print("Ctrl-C ends it all.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print()


if __name__ == "__main__":
    sys.exit(main())
