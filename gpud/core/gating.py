"""What facts and people's words change about gates, and what fails of a group mean for its rest.

Called by core/scheduler.py (`handle`), core/requests.py and core/attempts.py. A gate with a most
number of fails trips when so many of its jobs have failed since it was released: what waits in it
is held, and so is what comes, until somebody releases a job of it; then the count begins anew. What
a person retries by hand is queued, tripped or not.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from gpud.core.actions import Action, Answer
from gpud.core.events import GateRequested, RulesChanged, WindowsTurned
from gpud.core.model import Attempt, Job, JobState, Outcome
from gpud.core.rules import DEFAULT, NOTHING_KEPT, Kept
from gpud.core.shares import gpu_milli
from gpud.core.state import State

FAILS = (Outcome.FAILED, Outcome.KILLED, Outcome.TIMED_OUT, Outcome.LOST)


def on_rules_changed(state: State, event: RulesChanged, now_ms: int) -> Sequence[Action]:
    live = [
        (state.jobs[attempt.job].uid, milli)
        for attempt in state.attempts.values()
        if (milli := gpu_milli(attempt.lease))
    ]
    state.shares.change(event.rules, live, now_ms)
    for uid in state.shares.accounts if state.shares else ():
        state.keep_usage(uid)
    before = _tripped(state)
    state.gates.change(event.rules, _active(state))
    state.ready.rebuild(by_user=bool(state.shares))
    for key in sorted(_tripped(state) - before):
        _hold_all(state, key, now_ms)
    return ()


def on_windows_turned(state: State, event: WindowsTurned) -> Sequence[Action]:
    state.gates.tell(event.provider, event.windows)
    state.ready.reopen_all()
    return ()


def on_gate_requested(state: State, event: GateRequested) -> Sequence[Action]:
    """A new number of fails counts from now on."""
    kept = state.gates.kept.get(event.key, NOTHING_KEPT)
    limit = _said(event.limit, kept.limit)
    max_fails = _said(event.max_fails, kept.max_fails)
    fails = kept.fails if event.max_fails is None else 0
    _keep(state, event.key, Kept(limit, max_fails, fails))
    return (Answer(event.request),)


def begin_gate(
    state: State, key: str, limit: int | None = None, max_fails: int | None = None
) -> None:
    """A gate for a key to which nobody belongs yet, such as that of an array that is submitted
    now: without a walk over all jobs."""
    kept = state.changes.gates[key] = Kept(limit, max_fails)
    state.gates.keep(key, kept)


def end_gate(state: State, key: str) -> None:
    """Nobody belongs to it any more."""
    state.gates.forget(key)
    state.changes.gates[key] = NOTHING_KEPT


def _said(word: int | None, before: int | None) -> int | None:
    if word is None:
        return before
    return None if word == DEFAULT else word


# -- fails -----------------------------------------------------------------------------------------


def note_end(state: State, job: Job, attempt: Attempt, outcome: Outcome, now_ms: int) -> None:
    """The job is done. What gpud itself stopped, or a person, has not failed."""
    if outcome not in FAILS or attempt.stop_why:
        return
    for key in state.gates.of(job.belongs):
        gate = state.gates[key]
        if not gate.max_fails:
            continue
        tripped = gate.has_tripped
        kept = state.gates.kept.get(key, NOTHING_KEPT)
        _keep(state, key, structs.replace(kept, fails=kept.fails + 1))
        if not tripped and state.gates[key].has_tripped:
            _hold_all(state, key, now_ms)


def hold_if_tripped(state: State, job: Job, now_ms: int, but_for: tuple[str, ...] = ()) -> bool:
    """A job that waits, or an array: whether it was held. `but_for`: not by these."""
    for key in state.gates.of(job.belongs):
        if state.gates[key].has_tripped and key not in but_for:
            _hold(state, job, key, now_ms)
            return True
    return False


def any_tripped(state: State) -> bool:
    return bool(_tripped(state))


def note_release(state: State, job: Job) -> None:
    """Somebody releases it: the fails of its gates are forgiven."""
    for key in state.gates.of(job.belongs):
        if state.gates[key].has_tripped:
            _keep(state, key, structs.replace(state.gates.kept[key], fails=0))


def _hold_all(state: State, key: str, now_ms: int) -> None:
    for job in [*state.jobs.values()]:
        if job.state is JobState.QUEUED and key in job.belongs:
            _hold(state, job, key, now_ms)


def _hold(state: State, job: Job, key: str, now_ms: int) -> None:
    gate = state.gates[key]
    jobs = "1 job" if gate.fails == 1 else f"{gate.fails} jobs"
    why = f"{jobs} of {state.gates.label(key)} failed"
    state.hold(job, why, key)
    state.tell(job.id, job.attempt, "held", now_ms, why=why)


# -- the store's -----------------------------------------------------------------------------------


def _keep(state: State, key: str, kept: Kept) -> None:
    """May walk all jobs where a gate comes or goes."""
    gates, was_one = state.gates, state.gates.is_one(key)
    gates.keep(key, kept)
    state.changes.gates[key] = kept
    if gates.is_one(key) == was_one:
        state.ready.reopen(key)
    else:
        gates.renew(_active(state))
        state.ready.rebuild(by_user=bool(state.shares))


def _active(state: State) -> list[tuple[str, ...]]:
    return [state.jobs[job].belongs for job in state.attempts]


def _tripped(state: State) -> set[str]:
    return {key for key in state.gates.kept if state.gates[key].has_tripped}
