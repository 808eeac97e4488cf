"""What arrived, and whether it is what should have."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from examples.demo.private import PRIVATE, PUBLIC, in_otlp, in_sentry
from examples.demo.receivers import Receivers
from examples.demo.traffic import Reply, Scenario
from tests.support.kent import Item
from tests.support.otlp import OtlpSpan

Event = dict[str, Any]
Traffic = Sequence[tuple[Scenario, Sequence[Reply]]]

FOLLOW_UP: Final = "sentry.parent_span_already_sent"

_KEPT_BY_KENT: Final = 100


@dataclass(frozen=True, slots=True)
class Arrived:
    """What both sides have at one moment."""

    items: list[Item]
    readable: bool
    """Whether the Sentry side can be read back at all."""
    spans: list[OtlpSpan]

    @classmethod
    def now(cls, receivers: Receivers) -> "Arrived":
        items = receivers.items() if receivers.items is not None else []
        return cls(items, receivers.items is not None, receivers.otlp.spans())

    def transactions(self, trace_id: str) -> list[Event]:
        """The trace's, in the order of their start."""
        found = self._bodies("transaction", trace_id)
        return sorted(found, key=lambda transaction: transaction["start_timestamp"])

    def issues(self, trace_id: str) -> list[Event]:
        return self._bodies("event", trace_id)

    def profiles(self, trace_id: str) -> list[Event]:
        bodies = [item.body for item in self.items if item.type == "profile"]
        return [body for body in bodies if body["transactions"][0]["trace_id"] == trace_id]

    def otlp(self, trace_id: str) -> list[OtlpSpan]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def _bodies(self, kind: str, trace_id: str) -> list[Event]:
        bodies = [item.body for item in self.items if item.type == kind]
        return [body for body in bodies if trace_of(body).get("trace_id") == trace_id]


def trace_of(event: Event) -> Event:
    trace: Event = event.get("contexts", {}).get("trace", {})
    return trace


def is_follow_up(transaction: Event) -> bool:
    return FOLLOW_UP in trace_of(transaction).get("data", {})


def title_of(event: Event) -> str:
    """As Sentry titles an issue: the last exception in the list, or the message."""
    values = (event.get("exception") or {}).get("values")
    if values:
        return f"{values[-1]['type']}: {values[-1]['value']}"
    return str((event.get("logentry") or {}).get("formatted") or event.get("message"))


def handled(event: Event) -> bool | None:
    values = (event.get("exception") or {}).get("values")
    return values[-1]["mechanism"]["handled"] if values else None


def hottest(profile: Event) -> list[tuple[str, int]]:
    """The functions that the thread of the handler was in, and how often it was met there."""
    samples, stacks, frames = (profile["profile"][key] for key in ("samples", "stacks", "frames"))
    active = profile["transactions"][0]["active_thread_id"]
    met = [stacks[one["stack_id"]] for one in samples if one["thread_id"] == active]
    return Counter(frames[stack[0]]["function"] for stack in met if stack).most_common()


def problems(traffic: Traffic, arrived: Arrived) -> list[str]:
    """What is missing, too much or wrong, in words."""
    found: list[str] = []
    for scenario, replies in traffic:
        for reply in replies:
            checks = [*_answers(scenario, reply), *_spans(scenario, reply, arrived)]
            if arrived.readable:
                checks += [
                    *_transactions(scenario, reply, arrived),
                    *_issues(scenario, reply, arrived),
                    *_profiles(scenario, reply, arrived),
                ]
            found.extend(f"{scenario.name}: {problem}" for problem in checks)
    if arrived.readable:
        found.extend(_strangers(traffic, arrived))
    return found


def leaks(receivers: Receivers, arrived: Arrived) -> list[str]:
    """Private values on the Sentry side; and signs that the search does not find what is there."""
    if not arrived.readable:
        return []
    found = []
    for planted in PRIVATE:
        if places := in_sentry(planted, arrived.items):
            found.append(f"private and in Sentry all the same: {planted.way}, in {places}")
        if not in_otlp(planted, receivers.otlp):
            found.append(f"sent in, yet not in the OTLP data: {planted.way}")
    if not in_sentry(PUBLIC, arrived.items):
        found.append(f"sent in, yet not in Sentry: {PUBLIC.way}")
    return found


def _answers(scenario: Scenario, reply: Reply) -> Iterator[str]:
    if reply.answer not in scenario.answer.split():
        yield f"answered {reply.answer} instead of {scenario.answer}"
    if reply.caller not in (None, reply.trace_id):
        yield f"in the trace {reply.trace_id} instead of its caller's, {reply.caller}"


def _spans(scenario: Scenario, reply: Reply, arrived: Arrived) -> Iterator[str]:
    spans = arrived.otlp(reply.trace_id)
    if bool(spans) != scenario.spans:
        yield f"{len(spans)} OTLP spans in trace {reply.trace_id}"


def _transactions(scenario: Scenario, reply: Reply, arrived: Arrived) -> Iterator[str]:
    transactions = arrived.transactions(reply.trace_id)
    late = [one for one in transactions if is_follow_up(one)]
    if len(late) != scenario.follow_ups:
        yield f"{len(late)} follow-up transactions instead of {scenario.follow_ups}"
    if len(transactions) - len(late) != scenario.transactions:
        yield f"{len(transactions) - len(late)} transactions instead of {scenario.transactions}"
    exported = {span.span_id for span in arrived.otlp(reply.trace_id)}
    for transaction in transactions:
        ids = [trace_of(transaction)["span_id"], *(one["span_id"] for one in transaction["spans"])]
        if not exported.issuperset(ids):
            yield f"{transaction['transaction']} has spans that OTLP does not"
        yield from _owner(reply, transaction)


def _issues(scenario: Scenario, reply: Reply, arrived: Arrived) -> Iterator[str]:
    issues = arrived.issues(reply.trace_id)
    titles = [title_of(issue) for issue in issues]
    wanted = [] if scenario.issue is None else [scenario.issue]
    if len(titles) != len(wanted) or not all(map(str.startswith, titles, wanted)):
        yield f"the issues {titles} instead of {wanted}"
    for issue in issues:
        if handled(issue) is not scenario.handled:
            yield f"{title_of(issue)} has handled={handled(issue)}"
        yield from _owner(reply, issue)


def _profiles(scenario: Scenario, reply: Reply, arrived: Arrived) -> Iterator[str]:
    """The transaction refers to its profile, and that names the function that was slow."""
    profiles = arrived.profiles(reply.trace_id)
    contexts = [one["contexts"].get("profile") for one in arrived.transactions(reply.trace_id)]
    referred = [context["profile_id"] for context in contexts if context]
    if referred != [profile["event_id"] for profile in profiles]:
        yield f"refers to {len(referred)} profiles of {len(profiles)}"
    hot = [function for profile in profiles for function, _ in hottest(profile)[:1]]
    if hot != ([] if scenario.hot is None else [scenario.hot]):
        yield f"hottest in its profile is {hot} instead of {scenario.hot}"


def _owner(reply: Reply, event: Event) -> Iterator[str]:
    """Tag and user are those of the request and of no other."""
    tag, user = (event.get("tags") or {}).get("basket"), (event.get("user") or {}).get("id")
    if (tag, user) != (reply.owner, reply.owner):
        yield f"{title_of(event)} of {reply.owner} has the tag {tag} and the user {user}"


def _strangers(traffic: Traffic, arrived: Arrived) -> Iterator[str]:
    """What belongs to no request. The shop's own start is the only thing that may."""
    known = {reply.trace_id for _, replies in traffic for reply in replies}
    for item in arrived.items:
        if item.type not in ("transaction", "event"):
            continue
        name = item.body.get("transaction")
        if trace_of(item.body).get("trace_id") not in known and name != "open the shop":
            yield f"{item.type} {name!r} belongs to no request"
    if len(arrived.items) >= _KEPT_BY_KENT:
        yield f"{len(arrived.items)} items: there may have been more"
