"""What can only be counted as it happens: counters and histograms, from the committed events.

Made by daemon/metering.py, which subscribes `heard` to the engine. It is on the way of every start
and end: a few look-ups in dictionaries for each event, nothing for those it does not count. What
it remembers besides the counts is one time for each live attempt. All begins at 0 with the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gpud.core.model import JobId, JobState, Outcome
from gpud.core.state import State
from gpud.metrics import catalogue
from gpud.metrics.text import Histogram
from gpud.protocol.replies import EventView


class Counts:
    """`state` gives the engine's state as it is now."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state
        self.submitted = self.started = self.retried = 0
        self.jobs_ended = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        self.attempts_ended = dict(self.jobs_ended)
        self.wait = Histogram(catalogue.WAIT.bounds)
        self.start = Histogram(catalogue.START.bounds)
        self.run = Histogram(catalogue.RUN.bounds)
        self.commit = Histogram(catalogue.COMMIT.bounds)
        # (submitted, dispatched) of those on their way to the runner; 0: this is no first attempt
        self._starting: dict[int, tuple[int, int]] = {}
        self._running: dict[int, int] = {}  # since when
        for attempt in state().attempts.values():
            if attempt.started_at_ms:
                self._running[attempt.job] = attempt.started_at_ms
            else:
                self._on_dispatched(attempt.job, attempt.no, attempt.dispatched_at_ms)

    def heard(self, events: Sequence[EventView]) -> None:
        """Called by the engine after a commit: must be quick and must not raise."""
        for event in events:
            kind = event.kind
            if kind == "dispatched":
                self._on_dispatched(event.job, event.attempt, event.at_ms)
            elif kind == "started":
                self._on_started(event)
            elif kind == "ended":
                self._on_ended(event)
            elif kind == "submitted":
                self.submitted += event.count

    def _on_dispatched(self, job: int, attempt: int, at_ms: int) -> None:
        record = self._state().jobs.get(JobId(job)) if attempt == 1 else None
        self._starting[job] = (record.submitted_at_ms if record is not None else 0, at_ms)

    def _on_started(self, event: EventView) -> None:
        self.started += 1
        self._running[event.job] = event.at_ms
        submitted_ms, dispatched_ms = self._starting.pop(event.job, (0, 0))
        if submitted_ms:
            self.wait.observe((event.at_ms - submitted_ms) / 1000)
        if dispatched_ms:
            self.start.observe((event.at_ms - dispatched_ms) / 1000)

    def _on_ended(self, event: EventView) -> None:
        outcome = str(event.detail["outcome"])
        if event.attempt:
            self.attempts_ended[outcome] += 1
            self._starting.pop(event.job, None)
            since_ms = self._running.pop(event.job, 0)
            if since_ms:
                self.run.observe((event.at_ms - since_ms) / 1000)
        if "retry_at_ms" in event.detail:
            self.retried += 1
        elif not (event.attempt and self._is_held(event.job)):
            self.jobs_ended[outcome] += event.count

    def _is_held(self, job: int) -> bool:
        """The owner of its GPU has come back, and it has no retries: only its attempt is over."""
        record = self._state().jobs.get(JobId(job))
        return record is not None and record.state is JobState.HELD
