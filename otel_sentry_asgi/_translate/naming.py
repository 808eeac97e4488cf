"""What a span is called in Sentry: a transaction's name and its source, a span's description."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from otel_sentry_asgi._semconv import (
    CELERY_TASK,
    DB_COLLECTION,
    DB_OPERATION,
    DB_SUMMARY,
    DB_SYSTEM,
    DB_TEXT,
    HTTP_METHOD,
    HTTP_ROUTE,
    MESSAGING_DESTINATION,
    URL_TEMPLATE,
    text,
)
from otel_sentry_asgi._translate.reading import CLIENT, COMMAND_STORES, SERVER, Reading
from otel_sentry_asgi._translate.routes import best_template, template_of
from otel_sentry_asgi._translate.urls import client_url, path_of, split_url, without_query

Name = tuple[str, str]
"""A transaction's name and its source."""

# The default of OTel's instrumentations; other methods are any text that a client sends.
_METHODS: Final = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
_SOURCES: Final = frozenset({"custom", "url", "route", "view", "component", "task"})

# Stores whose statements are documents, which say less than operation and collection do.
_DOCUMENT_STORES: Final = frozenset(
    {
        *("mongodb", "elasticsearch", "opensearch", "dynamodb", "aws.dynamodb", "couchbase"),
        *("couchdb", "cosmosdb", "azure.cosmosdb", "pinecone", "qdrant", "milvus", "chroma"),
        "weaviate",
    }
)


def method_of(reading: Reading) -> str | None:
    """The HTTP method; `HTTP` for one outside the known set, as OTel names such spans."""
    method = reading.data.get(HTTP_METHOD)
    if method in (None, "") or not isinstance(method, str):
        return None
    return method if method in _METHODS else "HTTP"


def to_name(
    reading: Reading,
    *,
    routes: Iterable[str | None] = (),
    path: str | None = None,
    root_path: str = "",
) -> Name:
    """Name and source of a transaction whose root this is: for server spans without query,
    fragment and credentials.

    The others are for server spans only: *routes* are templates that a framework left elsewhere (a
    nested server span, the ASGI scope), beside the root's own `http.route`; *path* is the whole
    path and *root_path* what of it lies before the application, where the ASGI layer knows.
    """
    explicit = text(reading.data, "sentry.name")
    source = text(reading.data, "sentry.source")
    if explicit or source == "custom":
        return explicit or reading.name, source if source in _SOURCES else "custom"
    if reading.kind is not SERVER or reading.subject not in ("http", "websocket"):
        return _other_name(reading)
    method = None if reading.subject == "websocket" else method_of(reading)
    path = path or path_of(reading.data) or _path_in_name(reading.name)
    own = reading.data.get(HTTP_ROUTE) or reading.data.get(URL_TEMPLATE)
    found = [template for route in (own, *routes) if (template := template_of(route, path))]
    template = best_template(found, path, root_path)
    if template:
        return (f"{method} {template}" if method else template), "route"
    if path:
        return (f"{method} {path}" if method else path), "route" if path == "/" else "url"
    return reading.name or method or "websocket", "custom"


def _path_in_name(name: str) -> str | None:
    """The path in the name that OTel's ASGI middleware gives a span: `GET /x`, `HTTP /ws/x`,
    `/x`."""
    url = name[name.find(" ") + 1 :] if "://" in name else ""
    path = split_url(url)[2] if url else name[name.find("/") :] if "/" in name else ""
    return without_query(path) or None


def _other_name(reading: Reading) -> Name:
    if reading.subject in ("http", "websocket"):
        url = client_url(reading.data) if reading.kind is CLIENT else None
        return (_request(reading, url), "url") if url else (reading.name, "custom")
    if reading.subject == "messaging":
        return _message(reading), "task"
    if reading.subject == "db":
        return text(reading.data, DB_SUMMARY) or reading.name, "task"
    if reading.subject == "rpc":
        return _procedure(reading), "route"
    return reading.name, "route" if reading.subject == "faas" else "custom"


def to_description(reading: Reading) -> str:
    """What a child span shows; URLs in it have no query, fragment or credentials."""
    data = reading.data
    explicit = text(data, "sentry.description") or text(data, "sentry.name")
    if explicit:
        return explicit
    subject = reading.subject
    if subject == "db":
        return _statement(reading)
    if subject in ("http", "websocket"):
        if reading.kind is SERVER:
            return to_name(reading)[0]
        url = client_url(data) if reading.kind is CLIENT else None
        return _request(reading, url) if url else reading.name
    if subject == "messaging":
        return _message(reading)
    return _procedure(reading) if subject == "rpc" else reading.name


def _request(reading: Reading, url: str) -> str:
    method = method_of(reading)
    return f"{method} {url}" if method else url


def _statement(reading: Reading) -> str:
    data = reading.data
    if text(data, DB_SYSTEM) in _DOCUMENT_STORES:
        operation, collection = text(data, DB_OPERATION), text(data, DB_COLLECTION)
        if operation and collection:
            return f"{operation} {collection}"
    statement = text(data, DB_TEXT) or text(data, DB_SUMMARY)
    if statement is None or ("\n" in statement and text(data, DB_SYSTEM) in COMMAND_STORES):
        return reading.name  # Of a pipeline, the names of its commands.
    return statement


def _procedure(reading: Reading) -> str:
    """`shop.Shop/Buy`; gRPC's instrumentation puts a slash before it."""
    return reading.name.removeprefix("/")


def _message(reading: Reading) -> str:
    data = reading.data
    return text(data, CELERY_TASK) or text(data, MESSAGING_DESTINATION) or reading.name
