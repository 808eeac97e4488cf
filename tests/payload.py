"""What is asked of every payload that the tests build by hand."""

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from otel_sentry_asgi.testing import EPOCH
from tests.support.relay import Problem, relay_check

_RECEIVED = datetime.fromtimestamp(EPOCH + 10, timezone.utc).isoformat()


def problems(event: Mapping[str, Any]) -> list[Problem]:
    """What Relay has against an event of the time `EPOCH`.

    Left out: the dynamic sampling context, which sentry-sdk moves to the envelope; and that Relay
    masks ids in a name whose source is `url`, for which it has that source; and our own remarks.
    """
    event = json.loads(encoded({key: event[key] for key in event if key != "_meta"}))
    event.get("contexts", {}).get("trace", {}).pop("dynamic_sampling_context", None)
    is_path = event.get("transaction_info") == {"source": "url"}
    return [
        problem
        for problem in relay_check(event, received_at=_RECEIVED)
        if not (is_path and (problem.path, problem.kind) == ("transaction", "remark"))
    ]


def encoded(payload: Any) -> str:
    """The payload as it would leave: strict JSON that can be encoded as UTF-8."""
    text = json.dumps(payload, allow_nan=False, ensure_ascii=False)
    return text.encode().decode()
