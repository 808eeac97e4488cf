"""The attribute table: for each known OTel attribute what governs it, and why where that was ours
to decide.

The one source of truth: `_decide` acts on it, `python -m otel_sentry_asgi policy` prints it, and
`docs/policy.md` is printed from it. A category is a name of what sentry-sdk's `data_collection`
(or `send_default_pii`) decides about. Attributes that are in no row keep their value unless their
key holds a sensitive term.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from otel_sentry_asgi._policy._memo import Memo


class Category(Enum):
    """What governs an attribute."""

    KEEP = "always kept"
    SHORT = "kept, at most 64 characters"
    DROP = "never sent"
    TERMS = "filtered when the key holds a sensitive term"
    USER = "user_info"
    PEER = "user_info on server spans, kept elsewhere"
    URL = "url_query_params"
    QUERY = "url_query_params: the query alone"
    PATH_PARAMETER = "url_query_params: by the parameter's name"
    FRAGMENT = "user_info and url_query_params"
    HEADER = "http_headers"
    AGENT = "http_headers: as the header user-agent"
    STATEMENT = "database_query_data"
    DESCRIPTION = "database_query_data: text that a span is shown with"
    DATABASE = "database_query_data: values"
    QUEUE = "queues"
    GRAPHQL_DOCUMENT = "graphql.document"
    GRAPHQL_VARIABLES = "graphql.variables"
    GEN_AI_INPUT = "gen_ai.inputs"
    GEN_AI_OUTPUT = "gen_ai.outputs"
    GEN_AI = "gen_ai.inputs and gen_ai.outputs"
    REQUEST_BODY = "http_bodies: incoming_request, outgoing_request"
    RESPONSE_BODY = "http_bodies: outgoing_response, incoming_response"
    TEXT = "user_info: text of exceptions"
    SECRET = "always filtered"


class Row(NamedTuple):
    """One row. A name that ends in a dot stands for all keys that begin with it."""

    category: Category
    names: tuple[str, ...]
    why: str


def _row(category: Category, names: str, why: str) -> Row:
    return Row(category, tuple(names.split()), why)


TABLE: Final[tuple[Row, ...]] = (
    _row(
        Category.KEEP,
        """
        http.method http.request.method http.status_code http.response.status_code http.flavor
        http.scheme url.scheme http.route url.template network.protocol.name
        network.protocol.version network.transport network.type net.transport net.protocol.name
        net.protocol.version http.request_content_length http.response_content_length
        http.request.body.size http.response.body.size http.request.body.decoded_size
        http.response.body.decoded_size http.request.resend_count
        user_agent.synthetic.type error.type asgi.event.type
        """,
        "How the request went. Routes are templates, sizes are numbers.",
    ),
    _row(
        Category.SHORT,
        "http.request.method_original",
        "The caller may write anything there; methods are short.",
    ),
    _row(
        Category.KEEP,
        """
        http.host http.server_name server.address server.port net.host.name net.host.port
        net.host.ip network.local.address network.local.port
        """,
        "The service's own address.",
    ),
    _row(
        Category.USER,
        """
        http.client_ip client.address client.port client.socket.address client.socket.port
        source.address source.port
        """,
        "The client's address.",
    ),
    _row(
        Category.USER,
        "client.ip client_ip remote_addr remote_ip http.remote_addr x_forwarded_for x_real_ip",
        "The same, as applications call it.",
    ),
    _row(
        Category.PEER,
        """
        net.peer.ip net.peer.port net.peer.name net.sock.peer.addr net.sock.peer.port
        net.sock.peer.name network.peer.address network.peer.port net.sock.host.addr
        peer.address peer.ipv4 peer.ipv6 peer.hostname
        """,
        "The peer of a server span is a client, that of other spans a server.",
    ),
    _row(
        Category.AGENT,
        "http.user_agent user_agent.original",
        "sentry-sdk sends it with either setting.",
    ),
    _row(
        Category.URL,
        "http.url url.full url http.target url.path",
        "Never with credentials or a fragment; the path stays.",
    ),
    _row(
        Category.QUERY,
        "url.query http.query",
        "sentry-sdk sends it raw while personal data is off: tokens in it are the commonest leak.",
    ),
    _row(Category.PATH_PARAMETER, "url.path.parameter.", "Like a parameter of the query."),
    _row(
        Category.FRAGMENT,
        "url.fragment http.fragment",
        "Single-page applications and OAuth put tokens there.",
    ),
    _row(
        Category.HEADER,
        """
        http.request.header. http.response.header. rpc.request.metadata. rpc.response.metadata.
        rpc.grpc.request.metadata. rpc.grpc.response.metadata. rpc.connect_rpc.request.metadata.
        rpc.connect_rpc.response.metadata.
        """,
        "Credentials and cookies are `[Filtered]` in any case: cookies leave one by one, in "
        "`request.cookies`. So is `sec-websocket-protocol`, where browsers send tokens.",
    ),
    _row(
        Category.REQUEST_BODY,
        "http.request.body.data",
        "JSON by key; what has no keys to judge by is `[Filtered]`, and of GraphQL requests what "
        "the options of GraphQL leave out.",
    ),
    _row(Category.RESPONSE_BODY, "http.response.body.data", "As of requests."),
    _row(
        Category.USER,
        """
        user.id user.name user.email user.full_name user.hash user.roles user.ip_address
        enduser.id enduser.role enduser.scope enduser.pseudo.id user.geo. sentry.user.
        client.geo.locality.name client.geo.postal_code client.geo.location geo.locality.name
        geo.postal_code geo.location feature_flag.context.id
        """,
        "OTel does not tell who wrote them. What you want there regardless: "
        "`attribute_actions`, or Sentry's `set_user`.",
    ),
    _row(
        Category.SECRET,
        "session.id session.previous_id db.connection_string",
        "No option opens them: one who holds them is logged in. The key shows that it was there.",
    ),
    _row(
        Category.DESCRIPTION,
        "sentry.description sentry.name",
        "It may be a statement, a URL, or any other text.",
    ),
    _row(
        Category.SECRET,
        """
        tls.client.subject tls.client.issuer tls.client.certificate tls.client.certificate_chain
        tls.client.hash http.cookies http.request.cookies http.response.cookies
        """,
        "As the headers with certificates and cookies.",
    ),
    _row(Category.SECRET, "gen_ai.request.headers llm.headers", "Models are called with keys."),
    _row(
        Category.STATEMENT,
        "db.statement db.query.text",
        "`?` for each literal and no comments; of key-value stores' commands the first word. "
        "sentry-sdk sends statements always, but its ORM hooks see them before values are in.",
    ),
    _row(
        Category.KEEP,
        """
        db.system db.system.name db.name db.namespace db.operation db.operation.name
        db.operation.batch.size db.sql.table db.collection.name db.query.summary
        db.response.status_code db.mongodb.collection db.redis.database_index
        """,
        "What was asked of which table, without values.",
    ),
    _row(
        Category.DATABASE,
        """
        db.user db.params db.parameters db.sql.bindings db.sql.parameters db.statement.parameters
        db.statement.params db.query.parameters db.operation.parameters db.redis.parameters
        db.redis.key cache.key db.statement.parameter. db.query.parameter. db.operation.parameter.
        db.elasticsearch.path_parts. elasticsearch.url elasticsearch.target elasticsearch.params
        elasticsearch.id db.mongodb.query db.redis.args
        """,
        "Values of statements. Keys of caches and documents are made of people's ids.",
    ),
    _row(
        Category.KEEP,
        """
        messaging.system messaging.destination messaging.destination.name messaging.operation
        messaging.operation.name messaging.operation.type messaging.message.id
        messaging.message_id messaging.batch.message_count messaging.client.id
        messaging.consumer.group.name messaging.destination.partition.id
        """,
        "Which queue, how many.",
    ),
    _row(
        Category.QUEUE,
        """
        messaging.kafka.message.key messaging.kafka.message_key messaging.rocketmq.message.keys
        messaging.rocketmq.message_keys messaging.message.conversation_id
        messaging.conversation_id messaging.message.body messaging.header.
        messaging.message.header. messaging.message.body.
        """,
        "Content of messages, and keys that are made of it.",
    ),
    _row(
        Category.KEEP,
        """
        rpc.system rpc.system.name rpc.method rpc.service rpc.grpc.status_code
        rpc.response.status_code graphql.operation.name graphql.operation.type gen_ai.system
        gen_ai.provider.name gen_ai.operation.name gen_ai.request.model gen_ai.response.model
        gen_ai.usage. gen_ai.request.
        """,
        "Names and numbers.",
    ),
    _row(
        Category.GRAPHQL_DOCUMENT,
        "graphql.document graphql.source",
        "Literals are written into it.",
    ),
    _row(
        Category.GRAPHQL_VARIABLES,
        "graphql.variables graphql.param. graphql.arg. graphql.args",
        "Values of a document.",
    ),
    _row(
        Category.GEN_AI_INPUT,
        """
        gen_ai.input.messages gen_ai.prompt gen_ai.system_instructions gen_ai.request.messages
        gen_ai.retrieval.query.text gen_ai.tool.call.arguments gen_ai.tool.input
        gen_ai.content.prompt gen_ai.embeddings.input llm.prompts llm.input_messages
        ai.input_messages ai.texts traceloop.entity.input input.value gen_ai.request.prompt
        embedding.embeddings. embedding.text reranker.query reranker.input_documents.
        llm.prompt_template.variables tool.parameters tool_arguments
        """,
        "What was asked of a model.",
    ),
    _row(
        Category.GEN_AI_OUTPUT,
        """
        gen_ai.output.messages gen_ai.completion gen_ai.response.text gen_ai.tool.call.result
        gen_ai.retrieval.documents gen_ai.tool.output gen_ai.content.completion
        gen_ai.response.tool_calls llm.completions llm.output_messages ai.responses
        traceloop.entity.output output.value retrieval.documents. reranker.output_documents.
        tool_response
        """,
        "What it answered.",
    ),
    _row(
        Category.GEN_AI,
        "gen_ai.event.content pydantic_ai.all_messages all_messages_events",
        "One or the other.",
    ),
    _row(
        Category.TEXT,
        "exception.message sentry.status.message error.message rpc.jsonrpc.error_message",
        "The message is in the error event, where the request's secrets are taken out of it.",
    ),
    _row(
        Category.DROP,
        "exception.stacktrace log.record.original log.file.path",
        "A stack trace ends with the message; the error event has its frames, or in `extra` the "
        "text of one that is not Python's, cleaned like the message.",
    ),
    _row(
        Category.DROP,
        """
        process.command_args process.command_line process.command process.title
        process.executable.path process.environment_variable. container.command
        container.command_args container.command_line
        """,
        "Passwords are passed so.",
    ),
    _row(Category.DROP, "service.instance.id", "A random number, new with every start."),
    _row(
        Category.USER,
        """
        process.owner process.user.id process.user.name process.real_user.id
        process.real_user.name process.saved_user.id process.saved_user.name host.ip host.mac
        """,
        "On a developer's machine they are personal.",
    ),
    _row(
        Category.KEEP,
        """
        thread.id thread.name code.function code.function.name code.namespace code.filepath
        code.file.path code.lineno code.line.number exception.type service.name service.version
        service.namespace deployment.environment deployment.environment.name telemetry.sdk.name
        telemetry.sdk.language telemetry.sdk.version host.name host.arch os.type process.pid
        process.runtime.name process.runtime.version process.runtime.description
        process.executable.name faas.trigger faas.name faas.version faas.coldstart
        faas.invocation_id otel.scope.name otel.scope.version sentry.
        """,
        "The code and the process.",
    ),
    _row(
        Category.KEEP,
        """
        messaging.rabbitmq.routing_key messaging.rabbitmq.destination.routing_key aws.s3.key
        celery.routing_key celery.delivery_info feature_flag.key llm.token_count. llm.usage.
        gen_ai.token.type gen_ai.cost.
        gen_ai.response.time_to_first_token gen_ai.response.tokens_per_second
        ai.prompt_tokens.used ai.completion_tokens.used ai.total_tokens.used
        device.processor_count device.processor_frequency process.session_leader.pid
        """,
        "A sensitive term is in the name by chance only.",
    ),
    _row(
        Category.TERMS,
        "cloud.resource_id faas.document.name",
        "And every key that is in no row, baggage copied to attributes among them: most were set "
        "by hand. `allowed_attributes` closes this row.",
    ),
)

EXACT: Final[dict[str, Category]] = {
    name: row.category for row in TABLE for name in row.names if not name.endswith(".")
}

# The longest first: the first that fits decides.
PREFIXES: Final[tuple[tuple[str, Category], ...]] = tuple(
    sorted(
        ((name, row.category) for row in TABLE for name in row.names if name.endswith(".")),
        key=lambda prefix: -len(prefix[0]),
    )
)


def category_of(key: str) -> Category:
    """The category of an attribute. What hangs below a name (`gen_ai.prompt.0.content`) is in its
    row, unless that keeps everything."""
    return _categories[key]


def _category(key: str) -> Category:
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


_categories: Final = Memo(_category)


def after_prefix(key: str) -> str:
    """The name of a header, a parameter: what follows the prefix that puts the key in its row."""
    return next((key[len(prefix) :] for prefix, _ in PREFIXES if key.startswith(prefix)), key)
