"""Why a job waits: a sentence, and how many are before it. Pure.

Called by the control server for `why`, `ls` and `show`. What is said of room is in
core/explain_room.py.
"""

from __future__ import annotations

from math import ceil

from gpud.core.dependencies import HOW
from gpud.core.explain_room import capacity, claimed_for, kept_now, record_of
from gpud.core.lifecycle import place_of
from gpud.core.model import CPU_LANE, Job, JobId, JobState, Phase
from gpud.core.phrases import and_more, seconds, selector, where
from gpud.core.placement import unsatisfiable
from gpud.core.preemption import PREEMPTED
from gpud.core.ready import is_ready, rank_of
from gpud.core.shelves import Rank
from gpud.core.spans import common, count
from gpud.core.state import State


def explain(state: State, job: JobId, now_ms: int) -> str:
    """The first rule that keeps the job where it is; "" for a job that is not in memory (done)."""
    record = record_of(state, job)
    if record is None:
        return ""
    if record.state is JobState.HELD:
        why = f" since {record.why}" if record.why else ""
        by = record.held_by
        which = state.gates.selector(by) if by else selector(state, job)
        return f"held{why}: gpuctl release {which}"
    if record.state is JobState.ACTIVE:
        return _active(state, job, now_ms)
    if state.runner_problem:
        return f"jobs cannot be started now: {state.runner_problem}"
    if impossible := unsatisfiable(state.pool, record.request):
        return impossible
    if record.unmet:
        return _others(state, record)
    if record.not_before_ms and record.not_before_ms == record.begin_ms:
        return f"waits {seconds(record.not_before_ms - now_ms)} more to begin, as it was asked to"
    if record.not_before_ms:
        return (
            f"waits {seconds(record.not_before_ms - now_ms)} more before retry "
            f"{record.retry_no} of {record.retry_no + record.retries_left}"
        )
    if until_ms := state.shortage.until_ms:
        return f"waits {seconds(until_ms - now_ms)} more: {state.shortage.why}"
    if state.draining:
        return "the pool is drained: gpuctl undrain"
    kept, behind = kept_now(state), state.gates.why(state.gates.of(record.belongs), now_ms)
    # These were found to wait for room alone.
    if behind and (kept is None or kept.job != job) and not claimed_for(state, job):
        return behind
    return capacity(state, record, now_ms)


def ahead(state: State, job: JobId, now_ms: int) -> int:
    """How many jobs that could start now stand before this one. Walks the queue: for one job."""
    found = record_of(state, job)
    if found is None or not is_ready(found) or _is_behind_gate(state, found, now_ms):
        return 0
    # Beside the record that stands for it, not before: that counts its own elements.
    (priority, place, _), many = rank_of(found), state.find(job)
    assert many is not None
    rank: Rank = (priority, place, many.id)
    wanted, shares = state.pool.wanted, state.shares
    for_cpu = wanted(found.request) == 0
    share = {uid: shares.share(uid, now_ms) for uid in {j.uid for j in state.jobs.values()}}

    def before(other: Job) -> int:
        if shares and not for_cpu and other.priority == found.priority:
            mine, others = share[found.uid], share[other.uid]
            if mine != others:
                return (count(other.rest) or 1) if others < mine else 0
        return _before(other, rank, job) if rank_of(other) < rank else 0

    return sum(
        before(other)
        for other in state.jobs.values()
        if is_ready(other)
        and (wanted(other.request) == 0) == for_cpu
        and not _is_behind_gate(state, other, now_ms)
    )


def _is_behind_gate(state: State, job: Job, now_ms: int) -> bool:
    return bool(state.gates.closed(state.gates.of(job.belongs), now_ms))


def _before(job: Job, rank: Rank, asked: JobId) -> int:
    """Of the jobs this record stands for, those that come first."""
    if not job.rest:
        return 1
    all_of_it = -job.priority < rank[0] or (job.place and job.place < rank[1])
    end = asked if job.id == rank[-1] else rank[1]
    return count(job.rest if all_of_it else common(job.rest, ((0, ceil(end) - 1),)))


def _others(state: State, job: Job) -> str:
    """Other jobs keep it waiting."""
    before = state.links.broken(job)
    if before is not None:
        how = HOW[state.links.outcomes[before]]
        return f"waits for job {before}, which {how}: gpuctl retry {selector(state, before)}"
    waited_for = state.links.waited_for(job)
    if len(waited_for) == 1:
        (before,) = waited_for
        attempt = state.attempts.get(before)
        earlier = state.find(before)
        assert earlier is not None
        return f"waits for job {before}, which is {place_of(earlier, attempt)}"
    array = state.numbering.array_of(waited_for[0])
    if array is not None and array[0] <= min(waited_for) and max(waited_for) <= array[1]:
        size = array[1] - array[0] + 1
        return f"waits for array {array[0]}: {len(waited_for)} of its {size} jobs are not done"
    first = ", ".join(map(str, sorted(waited_for[:3])))
    return f"waits for {len(waited_for)} jobs: {first}{and_more(waited_for)}"


def _active(state: State, job: JobId, now_ms: int) -> str:
    attempt = state.attempts[job]
    on = f"on {where(state, attempt.lease)}"
    on_cpu = all(part.device == CPU_LANE for part in attempt.lease)
    held = "" if on_cpu else "; its GPU memory stays held"
    match attempt.phase:
        case Phase.STARTING:
            return f"starting {on}"
        case Phase.RUNNING:
            return f"running {on}"
        case Phase.PAUSED:
            long = seconds(now_ms - attempt.paused_at_ms)
            return f"paused {on} for {long}{held}: gpuctl continue {selector(state, job)}"
        case Phase.STOPPING if attempt.leaving:
            makes_room = ", to make room for an urgent job" if attempt.stop_why == PREEMPTED else ""
            return f"saving its state {on}{makes_room}, to be queued again"
        case Phase.STOPPING:
            return f"being stopped {on}"
        case Phase.FINISHING:
            return f"has ended {on}, which is being looked at"
