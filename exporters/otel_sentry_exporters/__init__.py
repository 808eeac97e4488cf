"""Where cleaned payloads go. One module each; import the one you need.

`otel_sentry_exporters.sdk.SdkExporter` sends through the sentry-sdk client (the default),
`otel_sentry_exporters.console.ConsoleExporter` draws in a terminal (needs the extra `console`).
"""
