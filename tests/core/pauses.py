"""Pauses and checkpoints as the ledger has them: who may be asked for one, and what follows.

Used by tests/core/turns.py. Reckons without core/running.py and core/stops.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpud.core.events import CheckpointRequested, ContinueRequested, PauseRequested
from gpud.core.health import GpuPolicy
from gpud.core.model import Attempt, JobId, JobSpec, Phase
from gpud.core.state import State

from .promises import Ledger
from .world import Key

Asked = PauseRequested | ContinueRequested | CheckpointRequested


def possible(
    event: Asked, live: Iterable[Attempt], ledger: Ledger, specs: Mapping[JobId, JobSpec]
) -> set[int]:
    """Jobs that a request can be granted to, before it is handled."""
    found = set()
    for attempt in live:
        key = attempt.job, attempt.no
        goes_on = attempt.phase in (Phase.RUNNING, Phase.PAUSED)
        able = goes_on and ledger.runner_ready and key not in ledger.older
        match event:
            case PauseRequested():
                good = able
            case ContinueRequested():
                good = goes_on
            case CheckpointRequested():
                good = key in ledger.leaving or (able and specs[attempt.job].checkpoint > 0)
        if good:
            found.add(attempt.job)
    return found


def note(event: Asked, keys: Iterable[Key], ledger: Ledger, now_ms: int) -> None:
    """It was granted to these."""
    for key in keys:
        match event:
            case PauseRequested():
                ledger.paused.setdefault(key, now_ms)
            case ContinueRequested():
                ledger.note_continue(key, now_ms)
            case CheckpointRequested():
                ledger.note_continue(key, now_ms)
                ledger.stopped.setdefault(key, "asked")
                ledger.leaving.add(key)


def note_stops(state: State, ledger: Ledger, specs: Mapping[JobId, JobSpec], now_ms: int) -> None:
    """What gpud stops by itself, and for whom that is a checkpoint: guests that can."""
    for attempt in state.attempts.values():
        key = attempt.job, attempt.no
        if not attempt.stop_why or key in ledger.stopped:
            continue
        ledger.stopped[key] = attempt.stop_why
        if key in ledger.paused:
            before_ms = ledger.paused_ms.get(key, 0)
            ledger.note_continue(key, now_ms)
            assert before_ms <= attempt.paused_ms <= ledger.paused_ms[key], f"{attempt}"
            ledger.paused_ms[key] = attempt.paused_ms  # by the time of the look
        if attempt.stop_why == "guest" and specs[attempt.job].checkpoint:
            ledger.leaving.add(key)


def told_idle(attempts: Iterable[Attempt]) -> set[Key]:
    return {(a.job, a.no) for a in attempts if a.usage is not None and "idle" in a.usage.told}


def check_idle(
    state: State, ledger: Ledger, before: set[Key], policy: GpuPolicy, now_ms: int
) -> None:
    """Who is paused does nothing, and is not told so, nor for that time later."""
    for key in told_idle(state.attempts.values()) - before:
        assert key not in ledger.paused, f"{key} is paused, and told that it is idle"
        since = ledger.continued.get(key, 0)
        assert now_ms - since >= policy.idle_ms, f"{key} was continued at {since}, and is idle"
