"""A trace: jobs with the time at which each is submitted, how long it runs and what it asks for.

The words that the simulator's files share. Made by tools/trace_csv.py (a file) and
tools/synthetic.py (a generator), run by tools/simulation.py and tools/fifo.py. Imports the core's
vocabulary and decides nothing.
"""

from __future__ import annotations

from msgspec import Struct

from gpud.core.model import ONE_SLOT, Request

MOST_JOBS = 1_000_000  # less than 1 GB in the simulator, should all of them wait


class TraceJob(Struct, frozen=True, gc=False):
    """One job; times are whole milliseconds, `submit_ms` since the first submit of the trace.

    `limit_ms` 0: no time limit. `line` 0: it stands in no file.
    """

    submit_ms: int
    duration_ms: int
    request: Request = ONE_SLOT
    limit_ms: int = 0
    priority: int = 0
    name: str = ""
    line: int = 0
    group: str = ""
    uid: int = 0

    @property
    def times_out(self) -> bool:
        return 0 < self.limit_ms < self.duration_ms

    @property
    def runs_ms(self) -> int:
        """How long it holds its GPUs: it is stopped at its limit."""
        return self.limit_ms if self.times_out else self.duration_ms

    @property
    def gpus(self) -> float:
        """How many GPUs, for people: a share is less than one; a job that does not say has one."""
        if self.request.share_milli:
            return self.request.share_milli / 1000
        return 1 if self.request.gpus is None else self.request.gpus

    @property
    def place(self) -> str:
        """Where a person finds it: "train (line 7)"."""
        where = f"line {self.line}" if self.line else "generated"
        return f"{self.name} ({where})" if self.name else where
