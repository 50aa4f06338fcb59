"""What people see of a job or a GPU that the store alone cannot say.

Called by control/queries.py and control/verbs.py. Why a job waits is explained from the state in
memory, at the moment of asking; what became of a job that is done is said from its record.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from gpud.core.explain import ahead, explain
from gpud.core.explain_room import kept_for, rule_in_words
from gpud.core.model import CPU_LANE, JobId, JobState, Outcome, Phase
from gpud.core.placement import unsatisfiable
from gpud.core.ready import is_ready
from gpud.core.state import State
from gpud.core.watching import device_problems, outside_windows
from gpud.protocol.gpus import GpuProcessView, GpuSightView, GpuView
from gpud.protocol.replies import AttemptView, EventView, JobView
from gpud.signals import signal_name

WAITING = (JobState.QUEUED.value, JobState.HELD.value)

_ENDED = {
    Outcome.SUCCEEDED: "it succeeded",
    Outcome.FAILED: "it failed",
    Outcome.KILLED: "it was killed",
    Outcome.TIMED_OUT: "it ran past its time limit",
    Outcome.CANCELLED: "it was cancelled",
    Outcome.NOT_STARTED: "it could not be started",
    Outcome.LOST: "how it ended is not known",
}


def with_reason(state: State, view: JobView, now_ms: int) -> JobView:
    """The view with its `reason`, if it waits or is paused, and its devices as people call them."""
    if view.lease:
        view = structs.replace(view, lease=labelled(state, view.lease))
    if view.state not in WAITING and view.phase != Phase.PAUSED:
        return view
    return structs.replace(view, reason=explain(state, JobId(view.id), now_ms))


def labelled(state: State, lease: tuple[str, ...]) -> tuple[str, ...]:
    """Of "GPU-8f6a…:500" the device's label, of a device that the pool has; the share stays."""
    pool, found = state.pool, []
    for part in lease:
        key, colon, milli = part.rpartition(":")
        if part in pool.devices or not colon:
            found.append(pool.label(part))
        else:
            found.append(f"{pool.label(key)}:{milli}")
    return tuple(found)


def attempts_of(
    state: State, attempts: Iterable[AttemptView], story: Iterable[EventView]
) -> tuple[AttemptView, ...]:
    """With their devices as people call them, and why it was these, as the story has it."""
    rules = {event.attempt: _rule(event) for event in story if event.kind == "dispatched"}
    return tuple(
        structs.replace(
            attempt, lease=labelled(state, attempt.lease), rule=rules.get(attempt.attempt, "")
        )
        for attempt in attempts
    )


def _rule(dispatched: EventView) -> str:
    detail = dispatched.detail
    lease = detail.get("lease")
    on_cpu = isinstance(lease, dict) and CPU_LANE in lease
    return rule_in_words(str(detail.get("rule", "")), on_cpu=on_cpu)


def reason(state: State, view: JobView, now_ms: int) -> str:
    """A sentence about where the job stands, whatever its state."""
    return explain(state, JobId(view.id), now_ms) or done_sentence(view)


def place_in_queue(state: State, job: JobId, now_ms: int) -> str:
    """A clause to go on with: "; 12 jobs are before it"; "" unless only capacity is missing."""
    record = state.find(job)
    if record is None or not is_ready(record) or state.draining or state.runner_problem:
        return ""
    if unsatisfiable(state.pool, record.request):
        return ""
    if state.gates.closed(state.gates.of(record.belongs), now_ms):
        return ""
    count = ahead(state, job, now_ms)
    if not count:
        return "; it is the next one"
    return "; 1 job is before it" if count == 1 else f"; {count} jobs are before it"


def done_sentence(view: JobView) -> str:
    """ "done: it failed with exit status 2"."""
    if not view.outcome:
        return view.state  # it ends at this moment: not committed yet
    text = "done: " + _ENDED[Outcome(view.outcome)]
    if view.outcome == Outcome.FAILED and view.exit_code is not None:
        text += f" with exit status {view.exit_code}"
    elif view.outcome == Outcome.KILLED and view.signal is not None:
        text += f" by {signal_name(view.signal)}"
    return f"{text}: {view.why}" if view.why else text


def gpu_views(state: State, now_ms: int) -> tuple[GpuView, ...]:
    """The pool, in its order (the lane cpu is the one without ids), then devices that have left it
    while a job still runs there."""
    pool, kept = state.pool, kept_for(state)
    problems = outside_windows(state, now_ms) | device_problems(state)
    jobs: dict[str, list[int]] = {}
    for job, attempt in state.attempts.items():
        for part in attempt.lease:
            jobs.setdefault(part.device, []).append(job)
    views = [
        GpuView(
            key=device.key,
            ids=device.ids,
            slots=device.slots,
            free_milli=pool.free_milli(device),
            jobs=_sorted(jobs.get(device.key, ())),
            problem=problems.get(device.key, "") or (pool.unknown if device.ids else ""),
            model=device.model,
            guest=device.guest,
            quarantined=state.health.is_quarantined(device),
            gpus=tuple(_sight(state, uuid) for uuid in device.uuids),
            promised_mib=pool.promised.get(device.key, 0) if device.ids else None,
            kept_for=kept.get(device.key, 0),
        )
        for device in pool.devices.values()
    ]
    views += (
        GpuView(
            key=key,
            ids=(),
            slots=0,
            free_milli=0,
            jobs=_sorted(held),
            problem="not in the pool now",
            promised_mib=pool.promised.get(key, 0),
        )
        for key, held in jobs.items()
        if key not in pool.devices
    )
    return tuple(views)


def _sight(state: State, uuid: str) -> GpuSightView:
    gpu = state.health.of(uuid)
    seen = gpu.sight
    if seen is None or seen.problem:
        return GpuSightView(uuid, gpu.seen_at_ms)
    return GpuSightView(
        uuid=uuid,
        seen_at_ms=gpu.seen_at_ms,
        total_mib=seen.total_mib,
        used_mib=seen.used_mib,
        free_mib=seen.free_mib,
        util=seen.util,
        temperature_c=seen.temperature_c,
        power_w=None if seen.power_mw is None else seen.power_mw / 1000,
        processes=tuple(
            GpuProcessView(p.pid, p.name, p.user, p.mib, p.job) for p in seen.processes
        ),
    )


def _sorted(jobs: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(jobs))
