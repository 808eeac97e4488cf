"""The commands of `python -m otel_sentry_asgi`, one module each with an `add_parser`."""
