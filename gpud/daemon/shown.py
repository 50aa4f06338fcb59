"""What a `gpud run` shows of its jobs while they run: events become lines, counts progress.

Owned by daemon/running.py. In the turn that made it an event is only noted; what it means is worked
out SHOW_EVERY_S later, for all that have come by then. So a thousand short jobs a second cost half
of what they would cost one by one, and none of it keeps the next start waiting.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from gpud.core.model import CPU_LANE, JobId, Outcome
from gpud.core.spans import count
from gpud.daemon import report
from gpud.daemon.app import App
from gpud.daemon.console import Console, Ended, Item, Note, Started
from gpud.paths import log_path
from gpud.protocol.replies import EventView

SHOW_EVERY_S = 0.03
LONGEST_COMMAND, LONGEST_NOTE = 160, 1000  # characters
LEFTOVERS = {
    "lingering": "its shell has ended; these live on and have a moment to end",
    "killed-leftovers": "stopped, since its shell had ended",
    "unassigned": "left alone, since nobody knows whose these are",
}


class Shown:
    """`all_read`: no further jobs come, so that the time to go can be told."""

    def __init__(self, app: App, *, prefix: bool, quiet: bool) -> None:
        self.all_read = False
        self._app = app
        self._quiet = quiet
        self._started_s = time.monotonic()
        self._done = 0
        self._failed = 0
        self._noted: list[tuple[EventView, bytes]] = []  # with the command that was dispatched
        self._timer: asyncio.TimerHandle | None = None
        self._console = Console(
            prefix=prefix, progress=self._progress if sys.stderr.isatty() else None
        )
        for attempt in app.state.attempts.values():
            self._console.put(Started(attempt.job, self._log(attempt.job, attempt.no), ""))
        app.subscribe(self._on_events)

    def note(self, sentence: str) -> None:
        """After all that has happened before."""
        self._show()
        line = report.shown(os.fsencode(sentence), LONGEST_NOTE)  # others name their programs
        self._console.put(Note(f"gpud: {line}"))

    def close(self) -> None:
        """Returns when all is written."""
        self._show()
        self._console.close()

    def _on_events(self, events: Sequence[EventView]) -> None:
        spec = self._app.engine.spec
        for event in events:
            started = event.kind == "dispatched"
            self._noted.append((event, spec(JobId(event.job)).command if started else b""))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SHOW_EVERY_S, self._show)

    def _show(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        noted, self._noted = self._noted, []
        items: list[Item] = []
        for event, command in noted:
            if event.kind == "dispatched":
                log = self._log(event.job, event.attempt)
                items.append(Started(event.job, log, self._start_line(event, command)))
            elif event.kind == "ended":
                items.append(self._ended(event))
            elif event.kind in LEFTOVERS and not self._quiet:
                names = event.detail["processes"]
                shown = ", ".join(names) if isinstance(names, list) else ""
                items.append(Note(f"[{event.job}] {LEFTOVERS[event.kind]}: {shown}"))
        if items:
            self._console.put(*items)

    def _start_line(self, event: EventView, command: bytes) -> str:
        if self._quiet:
            return ""
        lease = event.detail["lease"]
        keys = ",".join(lease) if isinstance(lease, dict) else ""
        where = "without a GPU" if keys == CPU_LANE else f"on GPU {keys}"
        return f"[{event.job}] {where}: {report.shown(command, LONGEST_COMMAND)}"

    def _ended(self, event: EventView) -> Ended:
        outcome = str(event.detail["outcome"])
        is_last = "retry_at_ms" not in event.detail
        failed = outcome != Outcome.SUCCEEDED
        self._done += is_last
        self._failed += is_last and failed
        line = _end_line(event, outcome) if failed and not self._quiet else ""
        return Ended(event.job, line, _has_output(self._log(event.job, event.attempt)))

    def _progress(self) -> str:
        state = self._app.state
        running = len(state.attempts)
        left = sum(count(job.rest) or 1 for job in state.jobs.values()) - running
        eta_s = None
        if self._done and self.all_read:
            eta_s = (time.monotonic() - self._started_s) / self._done * (left + running / 2)
        return report.progress(self._done, running, self._failed, left, eta_s)

    def _log(self, job: int, attempt: int) -> str:
        return log_path(self._app.state_dir, job, attempt)


def _end_line(event: EventView, outcome: str) -> str:
    detail = event.detail
    how = outcome
    if "exit_code" in detail and outcome == Outcome.FAILED:
        how = f"failed with exit status {detail['exit_code']}"
    elif "signal" in detail and outcome == Outcome.KILLED:
        how = f"killed by {report.signal_name(int(str(detail['signal'])))}"
    if detail.get("why"):
        how += f": {detail['why']}"
    if "retry_at_ms" in detail:
        pause_s = max(0, (int(str(detail["retry_at_ms"])) - event.at_ms) // 1000)
        how += f"; tried again in {pause_s} s"
    return f"[{event.job}] {how}"


def _has_output(log: str) -> bool:
    try:
        return os.lstat(log).st_size > 0
    except OSError:
        return False  # it was never made, or is gone
