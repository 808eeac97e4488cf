"""What one transaction is given is its own: hooks may change it."""

from typing import Any

import sentry_sdk
from sentry_sdk.scope import Scope

from otel_sentry_exporters._prepare import prepare
from tests.integration.prelude import DSN, Kept


def never(reason: str, counts: object) -> None:
    raise AssertionError(reason)


def test_a_hook_that_changes_a_payload_changes_no_other() -> None:
    def spoil(event: Any, hint: Any) -> Any:
        seen.append((str(event["sdk"]), str(event["_meta"])))
        event["sdk"]["integrations"].append("spoiled")
        event["sdk"]["packages"][0]["name"] = "spoiled"
        event["_meta"]["request"]["headers"]["cookie"][""]["rem"].append("spoiled")
        return event

    seen: list[Any] = []
    sentry_sdk.init(dsn=DSN, transport=Kept(), before_send_transaction=spoil)
    client = sentry_sdk.get_client()
    for _ in range(2):
        request = {"headers": {"cookie": "a=b"}}
        event = {"type": "transaction", "spans": [], "contexts": {}, "request": request}
        scopes = Scope(), Scope()
        assert prepare(event, client, scopes, {}, never) is event
    assert seen[0] == seen[1]
