"""Every kind of span but those of HTTP servers, as instrumentations of each generation write it.

`old` and `stable` say the same with the names of their time; `both` is what `http/dup` and its
likes write. All three come to the same payload.
"""

from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanKind, Status, StatusCode

Attributes = dict[str, Any]

SERVER, CLIENT, INTERNAL = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL
PRODUCER, CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER
FAILED = Status(StatusCode.ERROR, "ValueError: no cart of bob")


@dataclass(frozen=True)
class Kind:
    """A span: name, tracer (an instrumentation's, or with a colon a library's own), kind,
    attributes whose names have not changed, and those that have."""

    name: str
    scope: str
    kind: SpanKind
    same: Attributes
    old: Attributes
    stable: Attributes
    status: Status = Status(StatusCode.UNSET)  # noqa: RUF009 - immutable

    def attributes(self, generation: str) -> Attributes:
        if generation == "both":
            return {**self.same, **self.old, **self.stable}
        return {**self.same, **(self.old if generation == "old" else self.stable)}


def sql(system: str, scope: str) -> Kind:
    text, name = "SELECT \"id\" FROM orders WHERE owner = 'secret' AND id > $1", "shop"
    return Kind(
        "SELECT shop",
        scope,
        CLIENT,
        {"db.user": "bob"},
        {"db.system": system, "db.statement": text, "db.name": name, "net.peer.name": "db-1"},
        {
            "db.system.name": system,
            "db.query.text": text,
            "db.namespace": name,
            "server.address": "db-1",
        },
    )


def message(name: str, kind: SpanKind, operation: str, **given: Any) -> Kind:
    return Kind(
        name,
        "aio_pika",
        kind,
        {"messaging.system": "rabbitmq"},
        {
            "messaging.destination": "orders",
            "messaging.operation": operation,
            "messaging.message_id": "5",
            "net.peer.name": "queue-1",
            "net.peer.port": 5672,
        },
        {
            "messaging.destination.name": "orders",
            "messaging.operation.name": operation,
            "messaging.message.id": "5",
            "server.address": "queue-1",
            "server.port": 5672,
        },
        **given,
    )


def rpc(name: str, kind: SpanKind, scope: str, system: str, code: int | None = None) -> Kind:
    service, _, method = name.rpartition("/")
    same: Attributes = {"rpc.service": service, "rpc.method": method}
    if code is not None:
        same["rpc.grpc.status_code"] = code
    return Kind(name, scope, kind, same, {"rpc.system": system}, {"rpc.system.name": system})


def model(name: str, operation: str, **more: Any) -> Kind:
    same = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": "gpt-6",
        "gen_ai.input.messages": "[secret]",
        "gen_ai.output.messages": "[secret]",
        **more,
    }
    return Kind(
        name,
        "openai_v2",
        CLIENT,
        same,
        {
            "gen_ai.system": "openai",
            "gen_ai.usage.prompt_tokens": 5,
            "gen_ai.usage.completion_tokens": 7,
        },
        {
            "gen_ai.provider.name": "openai",
            "gen_ai.usage.input_tokens": 5,
            "gen_ai.usage.output_tokens": 7,
        },
    )


def call(name: str, scope: str, url: str, status: int, **same: Any) -> Kind:
    return Kind(
        name,
        scope,
        CLIENT,
        same,
        {"http.method": "GET", "http.url": url, "http.status_code": status},
        {"http.request.method": "GET", "url.full": url, "http.response.status_code": status},
    )


def plain(name: str, scope: str, kind: SpanKind, **given: Any) -> Kind:
    return Kind(name, scope, kind, given, {}, {})


JOB = plain("nightly", "shop:", INTERNAL)

FAMILIES: dict[str, list[Kind]] = {
    "databases": [
        JOB,
        sql("postgresql", "asyncpg"),
        sql("mysql", "pymysql"),
        sql("sqlite", "sqlite3"),
        Kind(
            "SET",
            "redis",
            CLIENT,
            {"db.redis.args_length": 3},
            {"db.system": "redis", "db.statement": "SET owner secret"},
            {"db.system.name": "redis", "db.query.text": "SET owner secret"},
        ),
        Kind(
            "shop.find",
            "pymongo",
            CLIENT,
            {},
            {
                "db.system": "mongodb",
                "db.operation": "find",
                "db.mongodb.collection": "orders",
                "db.statement": "find {'owner': 'secret'}",
            },
            {
                "db.system.name": "mongodb",
                "db.operation.name": "find",
                "db.collection.name": "orders",
                "db.query.text": "find {'owner': 'secret'}",
            },
        ),
        Kind(
            "search",
            "elasticsearch-api:",
            CLIENT,
            {},
            {
                "db.system": "elasticsearch",
                "db.operation": "search",
                "http.method": "POST",
                "http.url": "https://bob:secret@search-1:9200/orders/_search",
                "http.status_code": 404,
            },
            {
                "db.system.name": "elasticsearch",
                "db.operation.name": "search",
                "http.request.method": "POST",
                "url.full": "https://bob:secret@search-1:9200/orders/_search",
                "http.response.status_code": 404,
            },
        ),
        Kind(
            "DynamoDB.GetItem",
            "botocore",
            CLIENT,
            {"rpc.service": "DynamoDB", "rpc.method": "GetItem", "aws.region": "eu-1"},
            {"rpc.system": "aws-api", "db.system": "dynamodb", "http.status_code": 200},
            {
                "rpc.system.name": "aws-api",
                "db.system.name": "dynamodb",
                "http.response.status_code": 200,
            },
        ),
    ],
    "caches": [
        JOB,
        plain("get cart", "shop:", INTERNAL, **{"cache.key": ["cart:secret"], "cache.hit": True}),
        plain("put cart", "shop:", INTERNAL, **{"cache.operation": "put", "cache.item_size": 5}),
        Kind(
            "get",
            "pymemcache",
            CLIENT,
            {},
            {"db.system": "memcached", "db.operation": "get"},
            {"db.system.name": "memcached", "db.operation.name": "get"},
        ),
    ],
    "messaging": [
        message("orders process", CONSUMER, "process", status=FAILED),
        message("orders receive", CLIENT, "receive"),
        message("orders publish", PRODUCER, "publish"),
        message("orders create", PRODUCER, "create"),
        message("orders settle", CLIENT, "settle"),
        Kind(
            "apply_async/shop.add",
            "celery",
            PRODUCER,
            {"celery.action": "apply_async", "celery.task_name": "shop.add"},
            {"messaging.destination": "celery", "messaging.message_id": "6"},
            {"messaging.destination.name": "celery", "messaging.message.id": "6"},
        ),
    ],
    "rpc": [
        rpc("shop.Shop/Buy", SERVER, "grpc", "grpc", code=5),
        rpc("bank.Bank/Pay", CLIENT, "grpc", "grpc", code=14),
        rpc("bank.Bank/Pay", CLIENT, "grpc", "grpc", code=0),
        rpc("S3/PutObject", CLIENT, "botocore", "aws-api"),
    ],
    "http_clients": [
        JOB,
        call("GET", "httpx", "https://bob:secret@rates.example/eur?token=secret#top", 200),
        call("GET", "aiohttp_client", "http://rates.example:8080/usd?q=1", 429),
        call("GET", "urllib3", "http://[::1]:8080/", 504),
        plain("listen", "shop:", CLIENT, **{"url.scheme": "wss", "server.address": "h"}),
    ],
    "gen_ai": [
        model("invoke_agent clerk", "invoke_agent"),
        model("chat gpt-6", "chat"),
        model("execute_tool price", "execute_tool", **{"gen_ai.tool.call.arguments": "secret"}),
        model("embeddings gpt-6", "embeddings"),
    ],
    "graphql": [
        JOB,
        plain(
            "query Cart",
            "graphql",
            INTERNAL,
            **{
                "graphql.operation.type": "query",
                "graphql.operation.name": "Cart",
                "graphql.document": "query Cart { cart(owner: secret) }",
            },
        ),
        plain("parse", "graphql", INTERNAL, **{"graphql.processing.type": "parse"}),
    ],
    "faas": [
        Kind(
            "nightly",
            "aws_lambda",
            SERVER,
            {"faas.trigger": "timer", "faas.coldstart": True},
            {"faas.execution": "1-2", "faas.id": "arn:aws:lambda:f"},
            {"faas.invocation_id": "1-2", "cloud.resource_id": "arn:aws:lambda:f"},
        ),
        plain("compute", "shop:", INTERNAL, **{"code.function.name": "shop.compute"}),
    ],
    "event_stream": [
        Kind(
            "GET /events",
            "fastapi",
            SERVER,
            {
                "http.route": "/events",
                "http.response.header.content_type": ["text/event-stream; charset=utf-8"],
            },
            {"http.method": "GET", "http.target": "/events?token=secret", "http.scheme": "http"},
            {
                "http.request.method": "GET",
                "url.path": "/events",
                "url.query": "token=secret",
                "url.scheme": "http",
            },
        ),
    ],
}
