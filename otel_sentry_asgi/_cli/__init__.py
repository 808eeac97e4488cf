"""What `python -m otel_sentry_asgi` can do: one module a subcommand, each with `add_parser`."""
