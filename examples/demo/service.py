"""The shop, as a process of its own under uvicorn."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from examples.demo.private import PASSWORD
from examples.demo.receivers import Receivers
from tests.support._process import ChildProcess, accepts, spawn

ROOT = Path(__file__).parents[2]


@contextmanager
def shop(receivers: Receivers) -> Iterator[tuple[ChildProcess, str]]:
    """The running process and its base URL."""
    with TemporaryDirectory() as folder:
        unproxied = [*filter(None, [os.environ.get("NO_PROXY")]), "127.0.0.1", "localhost"]
        environment = {
            "SENTRY_DSN": receivers.dsn,
            "SENTRY_SPOTLIGHT": "",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receivers.otlp.endpoint,
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receivers.otlp.traces_endpoint,
            "OTEL_TRACES_SAMPLER": "parentbased_always_on",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "SHOP_DATABASE": str(Path(folder, "shop.sqlite")),
            "BANK_URL": f"http://shop:{PASSWORD.value}@127.0.0.1:9/charges",
            "NO_PROXY": ",".join(unproxied),
        }
        child, port = spawn(
            lambda port: [
                *(sys.executable, "-m", "uvicorn", "examples.shop.app:app"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env=lambda _: environment,
            ready=accepts,
            cwd=ROOT,
        )
        try:
            yield child, f"http://127.0.0.1:{port}"
        finally:
            child.stop()
