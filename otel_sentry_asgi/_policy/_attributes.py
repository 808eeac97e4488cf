"""The attribute table: for each known OTel attribute the category that governs it.

A category is a name of what sentry-sdk's `data_collection` (or `send_default_pii`) decides
about. Attributes that are in no row keep their value unless their key holds a sensitive term.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final


class Category(Enum):
    """What governs an attribute."""

    KEEP = "always kept"
    DROP = "never sent"
    TERMS = "filtered when the key holds a sensitive term"
    USER = "user_info"
    PEER = "user_info on server spans, kept elsewhere"
    URL = "URL: no credentials, query by url_query_params"
    PATH = "path kept, query by url_query_params"
    QUERY = "url_query_params"
    FRAGMENT = "fragment: with user_info and url_query_params"
    HEADER = "http_headers"
    AGENT = "http_headers, as the header user-agent"
    COOKIE = "cookies"
    STATEMENT = "literals only with database_query_data"
    DATABASE = "database_query_data"
    QUEUE = "queues"
    GRAPHQL_DOCUMENT = "graphql.document"
    GRAPHQL_VARIABLES = "graphql.variables"
    GEN_AI_INPUT = "gen_ai.inputs"
    GEN_AI_OUTPUT = "gen_ai.outputs"
    BODY = "http_bodies"
    TEXT = "free text of exceptions: with user_info"
    SECRET = "always filtered"


_ROWS: Final[dict[Category, str]] = {
    Category.KEEP: """
        http.method http.request.method http.status_code http.response.status_code http.flavor
        http.scheme url.scheme http.route url.template http.host http.server_name server.address
        server.port net.host.name net.host.port net.host.ip network.local.address
        network.local.port network.protocol.name network.protocol.version network.transport
        network.type net.transport net.protocol.name net.protocol.version
        http.request_content_length http.response_content_length http.request.body.size
        http.response.body.size http.request.body.decoded_size http.response.body.decoded_size
        http.request.method_original http.request.resend_count
        user_agent.synthetic.type error.type asgi.event.type
        db.system db.system.name db.name db.namespace db.operation db.operation.name
        db.operation.batch.size db.sql.table db.collection.name db.query.summary
        db.response.status_code db.mongodb.collection db.redis.database_index
        messaging.system messaging.destination messaging.destination.name messaging.operation
        messaging.operation.name messaging.operation.type messaging.message.id
        messaging.message_id messaging.batch.message_count messaging.client.id
        messaging.consumer.group.name messaging.destination.partition.id
        rpc.system rpc.system.name rpc.method rpc.service rpc.grpc.status_code
        rpc.response.status_code graphql.operation.name graphql.operation.type
        gen_ai.system gen_ai.provider.name gen_ai.operation.name gen_ai.request.model
        gen_ai.response.model faas.trigger faas.name faas.version faas.coldstart
        faas.invocation_id sentry.kind otel.scope.name otel.scope.version
        thread.id thread.name code.function code.function.name code.namespace code.filepath
        code.file.path code.lineno code.line.number exception.type
        service.name service.version service.namespace deployment.environment
        deployment.environment.name telemetry.sdk.name telemetry.sdk.language
        telemetry.sdk.version host.name host.arch os.type process.pid process.runtime.name
        process.runtime.version process.runtime.description process.executable.name
    """,
    Category.AGENT: "http.user_agent user_agent.original",
    Category.DROP: """
        container.command container.command_args container.command_line
        process.command_args process.command_line process.command process.executable.path
        exception.stacktrace log.record.original log.file.path service.instance.id
    """,
    Category.USER: """
        http.client_ip client.address client.port user.id user.name user.email user.full_name
        user.hash user.roles user.ip_address enduser.id enduser.role enduser.scope
        enduser.pseudo.id process.owner host.ip host.mac user.geo.city user.geo.country_code
        client.geo.locality.name client.geo.postal_code geo.locality.name geo.postal_code
        source.address
    """,
    Category.PEER: """
        net.peer.ip net.peer.port net.peer.name net.sock.peer.addr net.sock.peer.port
        net.sock.peer.name network.peer.address network.peer.port net.sock.host.addr
    """,
    Category.URL: "http.url url.full url",
    Category.PATH: "http.target url.path",
    Category.QUERY: "url.query http.query",
    Category.FRAGMENT: "url.fragment http.fragment",
    Category.STATEMENT: "db.statement db.query.text",
    Category.DATABASE: """
        db.user db.params db.sql.bindings db.redis.parameters db.redis.key cache.key
    """,
    Category.SECRET: "db.connection_string session.id session.previous_id",
    Category.QUEUE: """
        messaging.kafka.message.key messaging.kafka.message_key messaging.rocketmq.message.keys
        messaging.rocketmq.message_keys messaging.message.conversation_id
        messaging.conversation_id messaging.message.body
    """,
    Category.GRAPHQL_DOCUMENT: "graphql.document",
    Category.GRAPHQL_VARIABLES: "graphql.variables",
    Category.GEN_AI_INPUT: """
        gen_ai.input.messages gen_ai.prompt gen_ai.system_instructions gen_ai.request.messages
        gen_ai.retrieval.query.text gen_ai.tool.call.arguments gen_ai.tool.input
    """,
    Category.GEN_AI_OUTPUT: """
        gen_ai.output.messages gen_ai.completion gen_ai.response.text gen_ai.tool.call.result
        gen_ai.retrieval.documents gen_ai.tool.output
    """,
    Category.BODY: "http.request.body.data http.response.body.data",
    Category.TEXT: "exception.message sentry.status.message error.message",
}

EXACT: Final[dict[str, Category]] = {
    key: category for category, keys in _ROWS.items() for key in keys.split()
}

# Longest prefixes first: the first that fits decides.
PREFIXES: Final[tuple[tuple[str, Category], ...]] = (
    ("http.request.header.", Category.HEADER),
    ("http.response.header.", Category.HEADER),
    ("rpc.request.metadata.", Category.HEADER),
    ("rpc.response.metadata.", Category.HEADER),
    ("rpc.grpc.request.metadata.", Category.HEADER),
    ("rpc.grpc.response.metadata.", Category.HEADER),
    ("rpc.connect_rpc.request.metadata.", Category.HEADER),
    ("rpc.connect_rpc.response.metadata.", Category.HEADER),
    ("messaging.header.", Category.QUEUE),
    ("messaging.message.header.", Category.QUEUE),
    ("messaging.message.body.", Category.QUEUE),
    ("db.query.parameter.", Category.DATABASE),
    ("db.operation.parameter.", Category.DATABASE),
    ("db.elasticsearch.path_parts.", Category.DATABASE),
    ("url.path.parameter.", Category.QUERY),
    ("process.environment_variable.", Category.DROP),
    ("gen_ai.usage.", Category.KEEP),
    ("gen_ai.request.", Category.KEEP),
    ("sentry.", Category.KEEP),
)


@lru_cache(maxsize=4_096)
def category_of(key: str) -> Category:
    """The row of an attribute. What hangs below one (`gen_ai.prompt.0.content`) is in its row,
    unless that keeps everything."""
    known = EXACT.get(key)
    if known is not None:
        return known
    by_prefix = next((row for prefix, row in PREFIXES if key.startswith(prefix)), Category.TERMS)
    if by_prefix not in (Category.TERMS, Category.KEEP):
        return by_prefix
    above = key.rpartition(".")[0]
    while above:
        category = EXACT.get(above, Category.KEEP)
        if category is not Category.KEEP:
            return category
        above = above.rpartition(".")[0]
    return by_prefix
