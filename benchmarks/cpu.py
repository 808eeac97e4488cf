"""CPU time of a request under each stack, the stacks taking turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.processes import Process

BASE = "otel"
OURS = "ours"
REQUESTS = {0: 400, 6: 200, 200: 40}
"""How many requests make a round, by the number of child spans."""


@dataclass(frozen=True, slots=True)
class Figures:
    """CPU microseconds for a request, by stack, a value for each round."""

    spans: int
    rounds: dict[str, list[float]]

    def over(self, stack: str) -> list[float]:
        """What *stack* takes more than OpenTelemetry alone, round by round."""
        base = statistics.median(self.rounds[BASE])
        return [value - base for value in self.rounds[stack]]

    def median(self, stack: str) -> float:
        """The median of `over`."""
        return statistics.median(self.over(stack))

    def ratios(self, stack: str, to: str = OURS) -> list[float]:
        """What *stack* takes over OpenTelemetry as a multiple of what *to* takes, by round."""
        pairs = zip(self.over(stack), self.over(to), strict=True)
        return sorted(mine / max(other, 1.0) for mine, other in pairs)


def measure(stacks: Iterable[str], spans: Sequence[int], rounds: int) -> list[Figures]:
    """A fresh process for each stack and number of spans; the first round warms up."""
    figures = []
    with Process("benchmarks.sink") as sink:
        port = sink.read()
        for number in spans:
            with ExitStack() as running:
                children = {
                    name: running.enter_context(
                        Process("benchmarks.child", name, str(number), port)
                    )
                    for name in dict.fromkeys([BASE, *stacks])
                }
                values: dict[str, list[float]] = {name: [] for name in children}
                for turn in range(rounds + 1):
                    for name, child in children.items():
                        taken = float(child.ask(str(REQUESTS[number])))
                        if turn:
                            values[name].append(taken)
            figures.append(Figures(number, values))
    return figures
