"""What a client of the service sees: latency at a steady rate, and requests a second at most.

The load is open-loop: a request has its time, whether or not those before it have been answered,
and its latency counts from then (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.processes import Process

RATE = 300
CONNECTIONS = 32
_REQUEST = (
    b"GET /orders/77?expand=items HTTP/1.1\r\nHost: shop.example\r\nAccept: application/json\r\n"
    b"User-Agent: load\r\nAuthorization: Bearer 6b1f\r\nCookie: session=8f2d\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds at `RATE` requests a second, and requests a second at saturation."""

    p50: float
    p99: float
    throughput: float


class _Client:
    def __init__(self, port: int) -> None:
        self._port = port
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._free = asyncio.LifoQueue()

    async def open(self) -> None:
        for _ in range(CONNECTIONS):
            self._free.put_nowait(await asyncio.open_connection("127.0.0.1", self._port))

    async def get(self) -> None:
        reader, writer = await self._free.get()
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head.lower():
            await reader.readuntil(b"0\r\n\r\n")
        else:
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
        self._free.put_nowait((reader, writer))

    def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait()[1].close()


async def _steady(client: _Client, seconds: float) -> list[float]:
    """Latencies in seconds, of requests that are sent every 1 / `RATE` seconds."""
    latencies: list[float] = []

    async def one(due: float) -> None:
        await client.get()
        latencies.append(time.perf_counter() - due)

    begin = time.perf_counter()
    tasks = []
    for number in range(int(seconds * RATE)):
        due = begin + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return sorted(latencies)


async def _saturated(client: _Client, seconds: float) -> float:
    """Requests a second with `CONNECTIONS` clients that ask again at once."""
    count, until = 0, time.perf_counter() + seconds

    async def again() -> None:
        nonlocal count
        while time.perf_counter() < until:
            await client.get()
            count += 1

    await asyncio.gather(*(again() for _ in range(CONNECTIONS)))
    return count / seconds


async def _load(port: int, seconds: float) -> Latency:
    client = _Client(port)
    await client.open()
    await _saturated(client, min(1.0, seconds))  # Warm up.
    latencies = await _steady(client, seconds)
    throughput = await _saturated(client, seconds)
    client.close()
    at = len(latencies)
    return Latency(latencies[at // 2] * 1e3, latencies[at * 99 // 100] * 1e3, throughput)


def measure(
    stacks: list[str], spans: int, *, rounds: int, seconds: float
) -> dict[str, list[Latency]]:
    """Each stack in a service of its own, in turns: one at a time has the machine to itself."""
    values: dict[str, list[Latency]] = {name: [] for name in stacks}
    with Process("benchmarks.sink") as sink:
        port = sink.read()
        for _ in range(rounds):
            for name in stacks:
                with Process("benchmarks.service", name, str(spans), port) as service:
                    values[name].append(asyncio.run(_load(int(service.read()), seconds)))
    return values
