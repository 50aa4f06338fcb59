"""Who or what is in the way of a job when nothing more happens by itself. Pure.

Called by core/forecast.py. At the end of a walk all attempts that are left have no known end.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.dependencies import HOW
from gpud.core.model import Attempt, Job, JobId, JobState, Phase
from gpud.core.phrases import selector
from gpud.core.placement import resolved, serves, unsatisfiable
from gpud.core.state import State

MOST_NAMED = 3


def blame(state: State, job_id: JobId, now_ms: int) -> str:
    """A clause."""
    record, subject = state.find(job_id), "it"
    followed = {job_id}
    while record is not None and record.unmet and record.state is JobState.QUEUED:
        broken = state.links.broken(record)
        if broken is not None:
            how = HOW[state.links.outcomes[broken]]
            return f"job {broken} {how} (gpuctl retry {selector(state, broken)})"
        before = min(state.links.waited_for(record))
        if before in followed:
            break
        followed.add(before)
        record, subject = state.find(before), f"job {before}"
    if record is None:
        return "it waits for a job that is gone"
    if record.state is JobState.HELD:
        return f"{subject} is held (gpuctl release {selector(state, state.spoken(record.id))})"
    if record.state is JobState.ACTIVE:
        return endless([state.attempts[record.id]])
    return _behind_gate(state, record, subject, now_ms) or _no_room(state, record, subject)


def _behind_gate(state: State, job: Job, subject: str, now_ms: int) -> str:
    """ "" when its gates are open."""
    gates = state.gates
    key = gates.closed(gates.of(job.belongs), now_ms)
    if not key:
        return ""
    gate = gates[key]
    provider = gate.closed_by(now_ms)
    if provider and (window := gate.windows.get(provider)) is not None and window.open:
        return f"{subject} has no room before {gate.names[provider]} closes"
    if outside := gate.outside(now_ms):
        return f"{subject} waits for {outside}"
    there = [a for a in state.attempts.values() if key in state.jobs[a.job].belongs]
    return endless(there) if there else f"{gates.label(key)} may have no job running"


def _no_room(state: State, job: Job, subject: str) -> str:
    if state.runner_problem:
        return "jobs cannot be started now"
    if why := unsatisfiable(state.pool, job.request):
        return f"{subject} {why}"
    pool, request = state.pool, resolved(state.pool, job.request)
    gpus = pool.wanted(request)
    suited = {device.key for device in pool.devices.values() if serves(device, request, gpus)}
    there = [a for a in state.attempts.values() if any(p.device in suited for p in a.lease)]
    if there:
        return endless(there)
    return "nothing that it could have takes work now"


def endless(attempts: Sequence[Attempt]) -> str:
    """A clause about attempts whose end nobody knows. Those that are live already come first: they
    have the lower ids, as a rule."""
    paused = [a for a in attempts if a.phase not in (Phase.STARTING, Phase.RUNNING)]
    if paused:
        return f"job {paused[0].job} is {paused[0].phase}"
    jobs = sorted(attempt.job for attempt in attempts)
    if len(jobs) == 1:
        return f"job {jobs[0]} has no time limit"
    named = [str(job) for job in jobs[:MOST_NAMED]]
    last = f"{len(jobs) - MOST_NAMED} more" if len(jobs) > MOST_NAMED else named.pop()
    return f"jobs {', '.join(named)} and {last} have no time limit"
