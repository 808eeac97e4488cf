"""A small shop: FastAPI, SQLite on disk, OpenTelemetry to an OTLP backend and to Sentry.

    pip install -e ".[demo]"
    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 SENTRY_DSN=... \\
        uvicorn examples.shop.app:app

Much in it is broken on purpose: the demo (`make demo`) goes through all of it.
"""
