"""Jobs for each of which something is due at a time, pruned lazily.

Called by core/state.py. An entry counts only while `due_ms` still says that time of its job.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

from gpud.core.model import JobId


class Times:
    """`due_ms`: when it is due for this job, as its record says now; 0: not at all."""

    def __init__(self, due_ms: Callable[[JobId], int]) -> None:
        self._due_ms = due_ms
        self._heap: list[tuple[int, JobId]] = []

    def put(self, at_ms: int, job: JobId) -> None:
        heappush(self._heap, (at_ms, job))

    def first(self) -> tuple[int, JobId] | None:
        """The next time, and the job."""
        heap = self._heap
        while heap:
            at_ms, job = heap[0]
            if self._due_ms(job) == at_ms:
                return heap[0]
            heappop(heap)
        return None

    def entries(self) -> set[tuple[int, JobId]]:
        """All, those that no longer count included."""
        return set(self._heap)
