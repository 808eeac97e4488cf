"""The bank that the shop charges cards with. It never answers."""

import os

import httpx
from opentelemetry import trace
from opentelemetry.trace import SpanKind

# Nobody listens on port 9. A password in the URL is what the bank's manual says.
BANK_URL = os.environ.get("BANK_URL", "http://shop:password@127.0.0.1:9/charges")

tracer = trace.get_tracer(__name__)


class PaymentFailedError(Exception):
    """The card could not be charged."""


async def charge(cents: int) -> None:
    """Charge the customer's card.

    Raises:
        PaymentFailedError: Always.
    """
    with tracer.start_as_current_span(
        "POST",
        kind=SpanKind.CLIENT,
        attributes={"http.request.method": "POST", "url.full": BANK_URL},
    ):
        try:
            async with httpx.AsyncClient(trust_env=False) as bank:
                await bank.post(BANK_URL, json={"cents": cents})
        except httpx.ConnectError as error:
            raise PaymentFailedError("the bank is away") from error
