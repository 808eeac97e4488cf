"""What the resource says: release, environment, server name, and contexts of where it runs."""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.sdk.resources import Resource

from otel_sentry_asgi._model import Data
from otel_sentry_asgi._semconv import (
    ENVIRONMENT,
    HOST_NAME,
    SERVICE_NAME,
    SERVICE_VERSION,
    first_text,
    text,
)
from otel_sentry_asgi._translate.attributes import to_json_values

# Contexts that keep the resource's keys, so that the policy can judge them (`RESOURCE_CONTEXTS`).
_BY_PREFIX: Final = {
    "cloud.": "cloud_resource",
    "container.": "container",
    "k8s.": "kubernetes",
    "host.id": "cloud_resource",
    "host.type": "cloud_resource",
}
# Contexts that Sentry knows under keys of its own, whose values Relay takes as text only.
_BY_KEY: Final = {
    "process.runtime.name": ("runtime", "name"),
    "process.runtime.version": ("runtime", "version"),
    "os.name": ("os", "name"),
    "os.version": ("os", "version"),
    "os.build_id": ("os", "build"),
}


def resource_contexts(resource: Resource) -> dict[str, Data]:
    """`otel.resource` and the contexts that Sentry shows on their own. Each attribute is in one of
    them."""
    contexts: dict[str, Data] = {}
    rest: Data = {}
    for key, value in to_json_values(resource.attributes).items():
        known = _BY_KEY.get(key)
        if known is not None and isinstance(value, str):
            contexts.setdefault(known[0], {})[known[1]] = value
            continue
        name = next((name for prefix, name in _BY_PREFIX.items() if key.startswith(prefix)), None)
        if name is None:
            rest[key] = value
        else:
            contexts.setdefault(name, {})[key] = value
    if rest:
        contexts["otel"] = {"resource": rest}
    return contexts


def resource_defaults(resource: Resource | None) -> dict[str, str]:
    """Release, environment and server name as the resource gives them, valid for Relay."""
    attributes: dict[str, Any] = dict(resource.attributes) if resource else {}
    defaults: dict[str, str] = {}
    version = text(attributes, SERVICE_VERSION)
    name = text(attributes, SERVICE_NAME)
    if version:
        known = name and not name.startswith("unknown_service") and "/" not in name
        defaults["release"] = f"{name}@{version}" if known else version
    if environment := first_text(attributes, ENVIRONMENT):
        defaults["environment"] = environment
    if host := text(attributes, HOST_NAME):
        defaults["server_name"] = host
    return {key: value for key, value in defaults.items() if _is_valid(key, value)}


_latest: tuple[Resource | None, tuple[dict[str, Data], dict[str, str]]] = (None, ({}, {}))


def facts_of(resource: Resource | None) -> tuple[dict[str, Data], dict[str, str]]:
    """Contexts and defaults, kept for the next span: all spans of a provider share one resource.
    Not to be changed."""
    global _latest
    known, facts = _latest
    if known is not resource or resource is None:
        contexts = resource_contexts(resource) if resource is not None else {}
        facts = contexts, resource_defaults(resource)
        _latest = (resource, facts)
    return facts


_LONGEST: Final = {"release": 200, "environment": 64, "server_name": 200}
_NO_RELEASE: Final = frozenset({".", "..", "latest"})
_NO_ENVIRONMENT: Final = frozenset({".", "..", "none"})
_RESERVED: Final = {"release": _NO_RELEASE, "environment": _NO_ENVIRONMENT}


def _is_valid(key: str, value: str) -> bool:
    """Relay empties what is too long or holds these characters; then it is better left out."""
    if not value.strip() or not value.isprintable() or len(value) > _LONGEST[key]:
        return False
    reserved = _RESERVED.get(key)
    return reserved is None or (value.lower() not in reserved and not {"/", "\\"} & set(value))
