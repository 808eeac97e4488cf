"""Python code in a process of its own, for what can be set only once in a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def scenario(
    code: str, env: Mapping[str, str] | None = None, timeout: float = 120
) -> dict[str, Any]:
    """Run *code* after `from tests.integration.prelude import *`; what it `report`s last."""
    program = "from tests.integration.prelude import *\n" + textwrap.dedent(code)
    ours = ("OTEL_", "SENTRY_")
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=_ROOT,
        env={**inherited, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    facts: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    facts["stderr"] = done.stderr
    return facts
