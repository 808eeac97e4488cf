"""Where cleaned payloads go. One module each; import the one you need.

`otel_sentry_exporters.envelope.EnvelopeExporter` sends over connections of its own (the default),
`otel_sentry_exporters.sdk.SdkExporter` through the sentry-sdk client, and
`otel_sentry_exporters.console.ConsoleExporter` draws in a terminal (needs the extra `console`).
"""
