"""A service that knows of neither OpenTelemetry nor Sentry."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/orders/{order_id}")
async def order(order_id: int) -> dict[str, int]:
    return {"total": 100 // order_id}
