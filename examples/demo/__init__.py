"""`make demo`: a shop under traffic, and what Sentry and an OTLP backend each get of it.

It ends by itself, with status 0 if everything arrived that should have and nothing that should
not. From the environment: `KEEP=1` stays for browsing, `DSN=...` sends to a real Sentry,
`SPOTLIGHT=1` to Spotlight (needs Node).
"""
