"""What became of the jobs of a trace: when each started and ended, on what, or why it was refused.

Filled by tools/simulation.py (gpud's core) and tools/fifo.py (the reference), summed up by
tools/figures.py. Holds no rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpud.core.model import LeasePart
from gpud.tools.trace import TraceJob

NOT_YET = -1
Told = Callable[["Schedule"], None]  # as it grows


class Schedule:
    """By the job's place in the trace. Times are milliseconds since the first submit.

    A job is in `refused` (its place -> a sentence) or starts exactly once and ends exactly once.
    """

    def __init__(self, jobs: Sequence[TraceJob]) -> None:
        self.jobs = jobs
        self.start_ms = [NOT_YET] * len(jobs)
        self.end_ms = [NOT_YET] * len(jobs)
        self.leases: list[tuple[LeasePart, ...]] = [()] * len(jobs)
        self.refused: dict[int, str] = {}
        self._ended = 0

    @property
    def done(self) -> int:
        """How many jobs nothing more happens to."""
        return self._ended + len(self.refused)

    def start(self, place: int, lease: tuple[LeasePart, ...], now_ms: int) -> int:
        """Gives back when it will end."""
        if self.start_ms[place] != NOT_YET:
            raise RuntimeError(f"job {place} of the trace was started twice")
        self.start_ms[place] = now_ms
        self.leases[place] = lease
        return now_ms + self.jobs[place].runs_ms

    def end(self, place: int, now_ms: int) -> None:
        self.end_ms[place] = now_ms
        self._ended += 1

    def wait_ms(self, place: int) -> int:
        return self.start_ms[place] - self.jobs[place].submit_ms

    def ran(self) -> list[int]:
        """The places of the jobs that were not refused."""
        return [place for place in range(len(self.jobs)) if place not in self.refused]


def nobody(schedule: Schedule) -> None:
    """Is told how a schedule grows."""
