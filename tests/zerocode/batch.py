"""A process without ASGI: two jobs, of which one fails, below OTel's API alone."""

from contextlib import suppress

from opentelemetry import trace

tracer = trace.get_tracer("batch")

for job in ("good", "bad"):
    with suppress(ValueError), tracer.start_as_current_span(f"job {job}"):
        with tracer.start_as_current_span("fetch"):
            pass
        with tracer.start_as_current_span("store"):
            if job == "bad":
                raise ValueError("no room")
