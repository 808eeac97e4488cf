"""The shop's endpoints."""

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sentry_sdk
from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from opentelemetry import trace
from pydantic import BaseModel

from examples.shop.payments import charge
from examples.shop.search import search
from examples.shop.store import Store
from examples.shop.telemetry import observe, set_up

logger = logging.getLogger("shop")
provider = set_up()
tracer = trace.get_tracer(__name__)
exports: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    # A server that is ended by a signal runs no exit handlers: what waits is sent now.
    await asyncio.to_thread(provider.shutdown)


app = FastAPI(lifespan=lifespan)
observe(app)
with tracer.start_as_current_span("open the shop"):
    store = Store(Path(os.environ.get("SHOP_DATABASE", Path(tempfile.gettempdir(), "shop.sqlite"))))


class Customer(BaseModel):
    email: str


@app.get("/products/{product_id}")
def product(product_id: int) -> dict[str, object]:
    found = store.product(product_id)
    if found is None:
        raise HTTPException(404, "no such product")
    return {"name": found[0], "cents": found[1]}


@app.get("/search/{words}")
def find(words: str) -> list[str]:
    """Slow; its profile tells why."""
    return search(words)


@app.post("/customers", status_code=201)
def add_customer(customer: Customer) -> dict[str, bool]:
    store.add_customer(customer.email)
    return {"added": True}


@app.get("/stock")
async def stock() -> JSONResponse:
    """An error that nobody raised."""
    return JSONResponse({"error": "the warehouse is closed"}, status_code=500)


@app.get("/reports/average")
def average() -> dict[str, float]:
    """Divides by zero as long as nobody has bought anything."""
    orders, cents = store.takings()
    return {"average": cents / orders}


@app.post("/orders")
async def order() -> None:
    """Fails below an open span, and with a cause."""
    with tracer.start_as_current_span("check out"):
        await charge(2400)


@app.get("/recommendations")
def recommendations() -> list[int]:
    """Deals with an exception, and records it."""
    with tracer.start_as_current_span("rank") as span:
        try:
            raise TimeoutError("the model takes too long")
        except TimeoutError as error:
            span.record_exception(error)
            return [1, 2]


@app.post("/refunds")
def refund() -> dict[str, str]:
    """Tells everybody of one and the same exception."""
    try:
        raise PermissionError("refunds need two people")
    except PermissionError as error:
        trace.get_current_span().record_exception(error)
        sentry_sdk.capture_exception(error)
        logger.exception("refund failed")
        return {"refund": "later"}


@app.post("/newsletter", status_code=202)
def newsletter(tasks: BackgroundTasks) -> None:
    tasks.add_task(send_newsletter)


async def send_newsletter() -> None:
    """Runs, and fails, after the response."""
    raise ConnectionResetError("the mailer hung up")


@app.post("/exports", status_code=202)
async def export() -> None:
    task = asyncio.create_task(write_export())
    exports.add(task)
    task.add_done_callback(exports.discard)


async def write_export() -> None:
    """Goes on long after the request is over."""
    with tracer.start_as_current_span("write export"):
        await asyncio.sleep(0.4)
        raise OSError("no space left on device")


@app.get("/prices/{currency}")
def price(currency: str) -> dict[str, None]:
    logger.error("no exchange rate for %s", currency)
    return {"price": None}


@app.get("/baskets/{customer}")
async def basket(customer: str) -> dict[str, str]:
    """Several at once: each has its own tag and user on whatever it sends."""
    sentry_sdk.set_tag("basket", customer)
    sentry_sdk.set_user({"id": customer})
    await asyncio.sleep(0.1)
    sentry_sdk.capture_message(f"stale basket of {customer}", level="warning")
    return {"basket": customer}


@app.websocket("/support")
async def support(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            question = await socket.receive_text()
            with tracer.start_as_current_span("answer"):
                if question == "a human, please":
                    raise NotImplementedError("there are no humans here")
                await socket.send_text(f"Have you tried turning it off? ({question})")
    except WebSocketDisconnect:
        pass
