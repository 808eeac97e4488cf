"""OTel's spans and ASGI's scopes to Sentry's payloads: pure, total, without I/O or clock."""
