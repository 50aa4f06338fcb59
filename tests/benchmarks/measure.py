"""Taking turns, and what comes of it: medians, spreads, ratios of neighbours."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Effort:
    """How much of everything. `FULL` is what the limits are about; `SMOKE` only shows that it
    works."""

    name: str
    rounds: int
    jobs: int  # of a throughput run
    serial: int  # starts on one slot
    stamps: int  # submits to an idle daemon, one after another
    clients: int  # runs of a client process
    small: int  # stands for 100
    large: int  # stands for 10,000
    huge: int  # stands for 100,000
    growth_jobs: int
    turns: int  # of the core, with a long queue
    trace: int  # jobs of a simulated trace, stands for 100,000
    load_jobs: int  # of a trace on one small pool
    idle_s: float
    polling_s: float  # of looking at GPUs that do nothing
    settle_s: float  # until what follows a turn (the check of everything) is over


FULL = Effort(
    "full", 5, 4000, 400, 100, 40, 100, 10_000, 100_000, 2000, 300, 100_000, 2000, 20.0, 60.0, 12.0
)
QUICK = Effort(
    "quick", 3, 1500, 150, 50, 15, 100, 10_000, 100_000, 1000, 100, 30_000, 1000, 5.0, 20.0, 12.0
)
SMOKE = Effort("smoke", 1, 20, 5, 3, 2, 10, 100, 200, 10, 5, 100, 50, 0.3, 0.3, 0.0)


@dataclass(frozen=True)
class Bench:
    """Where and how much."""

    place: Path  # on a local disk; nothing in it is deleted while the benchmark runs
    effort: Effort

    def fresh(self, name: str) -> Path:
        """A directory that did not exist before."""
        for number in range(1, 10_000):
            path = self.place / f"{name}-{number}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
        raise RuntimeError(f"too many directories {name}-N in {self.place}")


@dataclass(frozen=True)
class Measured:
    """One figure: the median of `samples`. `peers` are measured in the same run, in the same unit;
    a text says why one was not. `skipped` says why there is no figure at all."""

    key: str
    samples: Sequence[float] = ()
    peers: dict[str, float | str] = field(default_factory=dict)
    detail: dict[str, object] = field(default_factory=dict)
    skipped: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.samples)


def quantile(samples: Sequence[float], share: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def take_turns(
    rounds: int, reference: Callable[[], float], *others: Callable[[], float]
) -> tuple[list[float], list[list[float]]]:
    """Run the reference before and after each round of the others. Gives back what the reference
    took, and for each other its ratios: itself divided by the mean of the references around."""
    references = [reference()]
    ratios: list[list[float]] = [[] for _ in others]
    for _ in range(rounds):
        taken = [other() for other in others]
        references.append(reference())
        around = (references[-1] + references[-2]) / 2
        for column, value in zip(ratios, taken, strict=True):
            column.append(value / around)
    return references, ratios


def inverted(ratios: Sequence[float]) -> list[float]:
    """Ratios of times as ratios of speeds."""
    return [1 / ratio for ratio in ratios]
