"""What is asked of every payload that the tests build by hand."""

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from otel_sentry_asgi.testing import EPOCH
from tests.support.relay import Problem, relay_check, relay_normalize

# What Sentry works out from other attributes.
_DERIVED = {"gen_ai.operation.type", "gen_ai.response.model", "gen_ai.usage.total_tokens"}
_RECEIVED = datetime.fromtimestamp(EPOCH + 10, timezone.utc).isoformat()


def problems(event: Mapping[str, Any], **options: Any) -> list[Problem]:
    """What Relay has against an event of the time `EPOCH`.

    Left out: the dynamic sampling context, which sentry-sdk moves to the envelope; and that Relay
    masks ids in a name whose source is `url`, for which it has that source; and our own remarks.
    """
    event = json.loads(encoded({key: event[key] for key in event if key != "_meta"}))
    event.get("contexts", {}).get("trace", {}).pop("dynamic_sampling_context", None)
    is_path = event.get("transaction_info") == {"source": "url"}
    return [
        problem
        for problem in relay_check(event, received_at=_RECEIVED, **options)
        if not (is_path and (problem.path, problem.kind) == ("transaction", "remark"))
    ]


def stored(event: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The event as Sentry's ingestion leaves it, which gives attributes their current names."""
    event = json.loads(encoded(event))
    kept, _ = relay_normalize(
        event, **{"received_at": _RECEIVED, "normalize_spans": True, **options}
    )
    assert kept is not None
    return kept


def names(event: Mapping[str, Any]) -> Any:
    """Everything by which one searches: the names of transaction, spans and attributes."""
    spans = [event["contexts"]["trace"], *event["spans"]]
    keys = ("description", "status", "origin")
    searched = [
        (span.get("op", "default"), *map(span.get, keys), sorted(set(span["data"]) - _DERIVED))
        for span in spans
    ]
    return event["transaction"], event["transaction_info"], searched


def encoded(payload: Any) -> str:
    """The payload as it would leave: strict JSON that can be encoded as UTF-8."""
    text = json.dumps(payload, allow_nan=False, ensure_ascii=False)
    return text.encode().decode()
