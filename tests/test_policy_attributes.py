"""Each row of the attribute table under `send_default_pii=False` and `True`, `data_collection={}`
and a `data_collection` with every category off."""

from dataclasses import replace
from typing import Any

import pytest

from otel_sentry_asgi._policy._attributes import EXACT, Category, category_of
from tests.policies import COLLECTING, OPEN, POLICIES, PRIVATE, STRICTEST

KEEP, DROP, FILTERED = "keep", "drop", "filtered"

URL = "https://bob:pass@h/p?q=1&token=x#top"
KNOWN_URL = "https://h/p?q=1&token=[Filtered]"
SQL = "SELECT * FROM users WHERE name = 'bob' AND age > 7"
PLAIN_SQL = "SELECT * FROM users WHERE name = ? AND age > ?"

# Names, value, and what comes of it under the four policies: private, open, collecting, strict.
ROWS: list[tuple[str, Any, tuple[Any, Any, Any, Any]]] = [
    (
        "http.client_ip client.address client.socket.address source.address",
        "192.0.2.7",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("client.port client.socket.port source.port", 5000, (DROP, KEEP, KEEP, DROP)),
    ("http.host http.server_name net.host.name server.address", "h", (KEEP, KEEP, KEEP, KEEP)),
    ("net.host.ip network.local.address", "10.0.0.1", (KEEP, KEEP, KEEP, KEEP)),
    ("server.port net.host.port", 80, (KEEP, KEEP, KEEP, KEEP)),
    ("http.user_agent user_agent.original", "curl/8", (KEEP, KEEP, KEEP, DROP)),
    ("http.url url.full url", URL, (KNOWN_URL, KNOWN_URL, KNOWN_URL, "https://h/p")),
    ("http.target url.path", "/p", (KEEP, KEEP, KEEP, KEEP)),
    (
        "http.target",
        "/p?q=1&token=x",
        ("/p?q=1&token=[Filtered]", "/p?q=1&token=[Filtered]", "/p?q=1&token=[Filtered]", "/p"),
    ),
    ("url.query http.query", "q=1", (KEEP, KEEP, KEEP, DROP)),
    (
        "url.query http.query",
        "q=1&token=x",
        ("q=1&token=[Filtered]", "q=1&token=[Filtered]", "q=1&token=[Filtered]", DROP),
    ),
    ("url.query", "x-real-ip=1", ("x-real-ip=[Filtered]", KEEP, KEEP, DROP)),
    ("url.fragment http.fragment", "top", (DROP, KEEP, KEEP, DROP)),
    ("url.path.parameter.id", "5", (KEEP, KEEP, KEEP, DROP)),
    ("url.path.parameter.token", "x", (FILTERED, FILTERED, FILTERED, DROP)),
    ("http.route url.template", "/p/{id}", (KEEP, KEEP, KEEP, KEEP)),
    ("http.method http.request.method", "GET", (KEEP, KEEP, KEEP, KEEP)),
    ("http.request.method_original", "get", (KEEP, KEEP, KEEP, KEEP)),
    ("http.request.method_original", "x" * 65, ("x" * 64,) * 4),
    ("http.status_code http.response.status_code", 200, (KEEP, KEEP, KEEP, KEEP)),
    ("http.scheme url.scheme", "https", (KEEP, KEEP, KEEP, KEEP)),
    ("http.flavor network.protocol.version", "1.1", (KEEP, KEEP, KEEP, KEEP)),
    ("http.request_content_length http.request.body.size", 7, (KEEP, KEEP, KEEP, KEEP)),
    ("http.response_content_length http.response.body.size", 7, (KEEP, KEEP, KEEP, KEEP)),
    ("http.request.header.accept", ["*/*"], (KEEP, KEEP, KEEP, DROP)),
    (
        "http.request.header.authorization http.request.header.proxy_authorization "
        "http.request.header.x_api_key http.request.header.x-api-key "
        "http.request.header.cookie http.response.header.set_cookie "
        "http.response.header.set-cookie http.request.header.cookie.theme "
        "http.request.header.x_csrf_token "
        "http.request.header.x_session_id rpc.grpc.request.metadata.authorization "
        "rpc.request.metadata.cookie rpc.response.metadata.x_auth",
        ["x"],
        (FILTERED, FILTERED, FILTERED, DROP),
    ),
    (
        "http.request.header.x_forwarded_for http.request.header.forwarded "
        "http.request.header.x_real_ip http.request.header.x-real-ip "
        "http.request.header.true_client_ip http.request.header.remote_addr "
        "http.request.header.via http.request.header.x_user "
        "rpc.grpc.request.metadata.x_forwarded_for",
        ["192.0.2.7"],
        (FILTERED, KEEP, KEEP, DROP),
    ),
    (
        "http.request.header.referer http.response.header.location",
        [URL],
        ([KNOWN_URL], [KNOWN_URL], [KNOWN_URL], DROP),
    ),
    ("http.response.header.content_type", ["text/html"], (KEEP, KEEP, KEEP, DROP)),
    ("rpc.grpc.request.metadata.tag rpc.response.metadata.tag", ["a"], (KEEP, KEEP, KEEP, DROP)),
    ("http.request.body.data http.response.body.data", "a=1", (FILTERED,) * 3 + (DROP,)),
    (
        "http.request.body.data http.response.body.data",
        '{"name": "bob", "password": "x"}',
        ('{"name": "bob", "password": "[Filtered]"}',) * 3 + (DROP,),
    ),
    (
        "user.id user.name user.email user.full_name user.hash user.roles user.ip_address "
        "enduser.id enduser.role enduser.scope enduser.pseudo.id user.geo.city user.geo.region "
        "client.geo.location.lat geo.location.lat geo.location.lon feature_flag.context.id "
        "sentry.user.id sentry.user.email sentry.user.ip_address sentry.user.username",
        "bob",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("session.id session.previous_id", "x", (FILTERED, FILTERED, FILTERED, FILTERED)),
    (
        "tls.client.subject tls.client.certificate tls.client.certificate_chain "
        "tls.client.hash.sha256 http.cookies http.request.cookies http.request.cookies.theme",
        "x",
        (FILTERED, FILTERED, FILTERED, FILTERED),
    ),
    ("db.connection_string", "x", (FILTERED, FILTERED, FILTERED, FILTERED)),
    ("db.statement db.query.text", SQL, (PLAIN_SQL, KEEP, KEEP, PLAIN_SQL)),
    ("db.query.summary", "SELECT users", (KEEP, KEEP, KEEP, KEEP)),
    ("db.system db.system.name", "sqlite", (KEEP, KEEP, KEEP, KEEP)),
    ("db.operation db.operation.name db.name db.namespace", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("db.sql.table db.collection.name db.mongodb.collection", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("db.user db.params db.sql.bindings db.redis.parameters", "x", (DROP, KEEP, KEEP, DROP)),
    (
        "db.statement.parameters db.query.parameters db.parameters db.operation.parameters "
        "db.statement.parameters.0 db.statement.parameter.name",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("db.redis.key cache.key", "x", (DROP, KEEP, KEEP, DROP)),
    ("db.query.parameter.name db.operation.parameter.0", "x", (DROP, KEEP, KEEP, DROP)),
    ("db.query.parameter.password", "x", (DROP, FILTERED, FILTERED, DROP)),
    ("db.elasticsearch.path_parts.index", "x", (DROP, KEEP, KEEP, DROP)),
    ("messaging.system messaging.message.id", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("messaging.destination messaging.destination.name", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("messaging.batch.message_count", 3, (KEEP, KEEP, KEEP, KEEP)),
    (
        "messaging.kafka.message.key messaging.rocketmq.message.keys "
        "messaging.message.conversation_id messaging.message.body messaging.message.body.text "
        "messaging.header.x messaging.message.header.x",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("messaging.header.authorization", "x", (DROP, FILTERED, FILTERED, DROP)),
    ("rpc.system rpc.service rpc.method", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("rpc.grpc.status_code", 0, (KEEP, KEEP, KEEP, KEEP)),
    ("graphql.operation.name graphql.operation.type", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("graphql.document graphql.variables", "x", (DROP, KEEP, KEEP, DROP)),
    (
        "gen_ai.input.messages gen_ai.prompt gen_ai.system_instructions "
        "gen_ai.retrieval.query.text gen_ai.tool.call.arguments gen_ai.prompt.0.content "
        "gen_ai.input.messages.0.parts.1.content gen_ai.content.prompt gen_ai.embeddings.input "
        "llm.prompts.0.content llm.input_messages.0.message.content traceloop.entity.input "
        "input.value gen_ai.event.content",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    (
        "gen_ai.output.messages gen_ai.completion gen_ai.tool.call.result "
        "gen_ai.retrieval.documents gen_ai.completion.0.content gen_ai.content.completion "
        "gen_ai.response.tool_calls llm.completions.0.content traceloop.entity.output "
        "llm.output_messages.0.message.content output.value",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("gen_ai.request.model gen_ai.usage.input_tokens", "x", (KEEP, KEEP, KEEP, KEEP)),
    # OpenInference, Pydantic AI, Traceloop.
    (
        "embedding.embeddings.0.embedding.text embedding.text reranker.query "
        "reranker.input_documents.0.document.content llm.prompt_template.variables "
        "retrieval.documents.0.document.content reranker.output_documents.0.document.content "
        "tool.parameters tool_arguments tool_response pydantic_ai.all_messages "
        "all_messages_events gen_ai.request.prompt",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("gen_ai.request.headers llm.headers", "x", (FILTERED, FILTERED, FILTERED, FILTERED)),
    (
        "graphql.param.mail graphql.args graphql.arg.mail graphql.source",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    (
        "elasticsearch.url elasticsearch.target elasticsearch.params elasticsearch.id "
        "db.mongodb.query db.redis.args",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    (
        "client.ip client_ip remote_addr remote_ip http.remote_addr x_forwarded_for x_real_ip",
        "192.0.2.7",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("celery.routing_key celery.delivery_info", "{'routing_key': 'a'}", (KEEP,) * 4),
    ("exception.message sentry.status.message", "x", (DROP, KEEP, KEEP, DROP)),
    ("exception.stacktrace", "x", (DROP, DROP, DROP, DROP)),
    ("exception.type error.type", "x", (KEEP, KEEP, KEEP, KEEP)),
    ("code.function.name code.lineno thread.name", "x", (KEEP, KEEP, KEEP, KEEP)),
    (
        "process.command_args process.command_line process.environment_variable.HOME "
        "process.command_args.0 process.title",
        "x",
        (DROP, DROP, DROP, DROP),
    ),
    (
        "process.user.name process.user.id process.real_user.name process.real_user.id",
        "x",
        (DROP, KEEP, KEEP, DROP),
    ),
    ("process.owner host.ip host.mac host.ip.0", "x", (DROP, KEEP, KEEP, DROP)),
    ("log.record.original", "x", (DROP, DROP, DROP, DROP)),
    ("faas.trigger asgi.event.type sentry.op", "x", (KEEP, KEEP, KEEP, KEEP)),
    (
        "messaging.rabbitmq.routing_key messaging.rabbitmq.destination.routing_key aws.s3.key "
        "feature_flag.key gen_ai.token.type gen_ai.cost.input_tokens gen_ai.cost.total_tokens "
        "gen_ai.response.tokens_per_second gen_ai.response.time_to_first_token "
        "gen_ai.usage.input_tokens.cached device.processor_count process.session_leader.pid",
        5,
        (KEEP, KEEP, KEEP, KEEP),
    ),
    ("cart.size order.total", 5, (KEEP, KEEP, KEEP, KEEP)),
    (
        "card.password API_KEY oauth.bearer sessionid order.secret-code basket.jwt x.csrf",
        "x",
        (FILTERED, FILTERED, FILTERED, FILTERED),
    ),
]

CASES = [
    pytest.param(name, policy, value, expected, id=f"{policy}-{name}")
    for names, value, outcomes in ROWS
    for name in names.split()
    for policy, expected in zip(POLICIES, outcomes, strict=True)
]


@pytest.mark.parametrize(("name", "policy", "value", "expected"), CASES)
def test_each_row_of_the_table(name: str, policy: str, value: Any, expected: Any) -> None:
    outcome = POLICIES[policy].attributes({name: value})
    assert outcome == {
        KEEP: {name: value},
        DROP: {},
        FILTERED: {name: "[Filtered]"},
    }.get(expected if isinstance(expected, str) else "", {name: expected})


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("outputs", [False, True])
def test_what_may_be_prompt_or_answer_stays_where_both_do(inputs: bool, outputs: bool) -> None:
    policy = replace(PRIVATE, gen_ai_inputs=inputs, gen_ai_outputs=outputs)
    attributes = {"gen_ai.event.content": "x"}
    assert policy.attributes(attributes) == (attributes if inputs and outputs else {})


PEER = """
    net.peer.ip net.peer.port net.peer.name net.sock.peer.addr net.sock.peer.port
    net.sock.peer.name network.peer.address network.peer.port peer.address peer.ipv4 peer.ipv6
    peer.hostname
"""


@pytest.mark.parametrize("name", PEER.split())
def test_the_peer_of_a_server_span_is_a_person_and_of_others_a_machine(name: str) -> None:
    server = {name: "192.0.2.7", "sentry.kind": "server"}
    client = {name: "192.0.2.7", "sentry.kind": "client"}
    for policy in (PRIVATE, STRICTEST):
        assert policy.attributes(server) == {"sentry.kind": "server"}
        assert policy.attributes(client) == client
    for policy in (OPEN, COLLECTING):
        assert policy.attributes(server) == server


def test_of_the_commands_of_key_value_stores_the_first_word_is_kept() -> None:
    attributes = {"db.system": "redis", "db.statement": "SET name bob"}
    assert PRIVATE.attributes(attributes)["db.statement"] == "SET ?"
    assert OPEN.attributes(attributes) == attributes


def test_values_that_are_no_text_pass_where_text_would_be_cleaned() -> None:
    attributes = {"url.full": 5, "db.statement": None, "http.target": True}
    assert PRIVATE.attributes(attributes) == attributes


def test_lists_are_cleaned_item_by_item() -> None:
    assert PRIVATE.attributes({"url.full": [URL, URL], "db.statement": [SQL]}) == {
        "url.full": [KNOWN_URL, KNOWN_URL],
        "db.statement": [PLAIN_SQL],
    }


def test_the_attributes_that_are_given_are_not_changed() -> None:
    attributes = {"user.id": "bob", "url.full": URL}
    PRIVATE.attributes(attributes)
    assert attributes == {"user.id": "bob", "url.full": URL}


@pytest.mark.parametrize(
    "name", sorted(name for name, category in EXACT.items() if category is not Category.KEEP)
)
def test_what_hangs_below_an_attribute_is_governed_like_it(name: str) -> None:
    """Translation makes such names of what is nested."""
    assert category_of(f"{name}.0.deeper") is EXACT[name]


@pytest.mark.parametrize("name", sorted(EXACT))
def test_a_term_of_ones_own_filters_every_key_that_holds_it(name: str) -> None:
    policy = replace(OPEN, terms=(name[1:-1].upper().replace("_", "-"),))
    dropped = EXACT[name] is Category.DROP
    assert policy.attributes({name: "x"}) == ({} if dropped else {name: "[Filtered]"})
