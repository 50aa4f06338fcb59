"""What a look at the GPUs changes: their health, and the attempts that run on them.

Called by core/scheduler.py (`handle`). Each look is judged whole: quarantine what is broken, notice
memory that is not given back, add up what attempts used, point out those on the wrong GPU and those
that do nothing, give guest GPUs back, and finish attempts that waited for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpud.core import usage
from gpud.core.actions import Action, Answer, LookAtGpus
from gpud.core.attempts import finish_after_look
from gpud.core.events import GpuBroke, GpusSeen, HealRequested
from gpud.core.health import (
    RELEASE_TOLERANCE_MIB,
    Gpu,
    describe,
    is_ignored,
    unaccounted_mib,
    unreleased,
)
from gpud.core.model import Attempt, JobId, LeasePart, Phase, Usage
from gpud.core.quarantines import heal, lift_for_memory, quarantine
from gpud.core.sight import NOT_LISTED, GpuProcess, GpuSight
from gpud.core.state import State
from gpud.core.stops import save_and_leave, stop

WRITTEN_MS = 60_000  # how often what an attempt has used so far is committed

Holders = dict[str, list[tuple[Attempt, LeasePart]]]
Places = dict[tuple[int, int], list[tuple[str, GpuProcess]]]  # (job, attempt) -> GPU, process


def on_gpus_seen(state: State, event: GpusSeen, now_ms: int) -> Sequence[Action]:
    health = state.health
    if event.at_ms < health.seen_at_ms <= now_ms:
        state.stale += 1  # a later one has been judged
        return ()
    health.asked_at_ms = 0
    health.seen_at_ms, health.looked_at_ms = min(event.at_ms, now_ms), now_ms
    health.problem = event.problem
    if event.problem:
        return finish_after_look(state, now_ms)
    holders = holders_of(state)
    sights = _judged(state, event, now_ms)
    for sight in sights:
        gpu = health.of(sight.uuid)
        gpu.seen_at_ms, gpu.heard_at_ms, gpu.sight = health.seen_at_ms, now_ms, sight
        if not sight.problem:
            if not holders.get(sight.uuid):
                _judge_memory(state, gpu, sight, now_ms)
        elif sight.broken:
            quarantine(state, sight.uuid, sight.problem, now_ms)
    actions = _look_at_attempts(state, sights, event.at_ms, holders)
    for sight in sights:
        _note_energy(health.of(sight.uuid), sight)
    actions += finish_after_look(state, now_ms)
    return actions


def on_gpu_broke(state: State, event: GpuBroke, now_ms: int) -> Sequence[Action]:
    quarantine(state, event.uuid, event.why, now_ms)
    return ()


def on_heal(state: State, event: HealRequested, now_ms: int) -> Sequence[Action]:
    known = state.health.gpus
    uuids = [uuid for uuid in event.uuids if uuid in known] if event.uuids else [*known]
    healed = sum(heal(state, uuid, now_ms, "by hand") for uuid in uuids)
    state.health.asked_at_ms = now_ms
    return (LookAtGpus(afresh=True), Answer(event.request, count=healed))


def holders_of(state: State) -> Holders:
    """Per GPU (UUID) the attempts with a lease on it whose payload lives, and what of it they
    have."""
    found: Holders = {}
    for attempt in state.attempts.values():
        if attempt.phase is not Phase.FINISHING:
            for part, uuid in state.parts_of(attempt):
                found.setdefault(uuid, []).append((attempt, part))
    return found


def _judged(state: State, event: GpusSeen, now_ms: int) -> list[GpuSight]:
    """What a look says, also of GPUs that it did not come upon. Not of one that was healed after it
    had begun."""
    sights = []
    for sight in (*event.gpus, *_not_listed(state, event.gpus)):
        gpu = state.health.of(sight.uuid)
        gpu.ended_at_ms = min(gpu.ended_at_ms, now_ms)  # the clock may have been set back
        gpu.healed_at_ms = min(gpu.healed_at_ms, now_ms)
        if gpu.healed_at_ms <= event.at_ms:
            sights.append(sight)
    return sights


def _not_listed(state: State, seen: Sequence[GpuSight]) -> Sequence[GpuSight]:
    """GPUs of the pool that a look did not come upon."""
    known = {sight.uuid for sight in seen}
    wanted = [uuid for device in state.pool.devices.values() for uuid in device.uuids]
    return [GpuSight(uuid, NOT_LISTED) for uuid in wanted if uuid not in known]


def _judge_memory(state: State, gpu: Gpu, sight: GpuSight, now_ms: int) -> None:
    """Rule 4 of core/health.py, of a GPU without a lease. What is nobody's, and no attempt can have
    left, is usual; where nobody knows whose memory is whose, so is what stays."""
    loose = unaccounted_mib(sight)
    if loose is None:
        gpu.unreleased_since_ms = 0
        return
    if gpu.quarantine is not None and gpu.quarantine.base_mib is not None:
        gpu.base_mib = gpu.quarantine.base_mib
    elif gpu.base_mib is None or not gpu.last_job:
        gpu.base_mib = loose
    if loose > gpu.base_mib + RELEASE_TOLERANCE_MIB:
        gpu.unreleased_mib = loose - gpu.base_mib
        gpu.unreleased_since_ms = gpu.unreleased_since_ms or now_ms
        if now_ms - gpu.unreleased_since_ms < state.health.policy.release_wait_ms:
            return
        if sight.attributable:
            why = f"{unreleased(gpu)} still in use"
            quarantine(state, sight.uuid, why, now_ms, base_mib=gpu.base_mib)
            return
        gpu.base_mib = loose
    gpu.base_mib, gpu.unreleased_since_ms = min(gpu.base_mib, loose), 0
    if gpu.seen_at_ms > gpu.ended_at_ms:
        gpu.last_job = JobId(0)
    lift_for_memory(state, gpu, sight.uuid, now_ms)


def _note_energy(gpu: Gpu, sight: GpuSight) -> None:
    """What was reckoned for attempts that have ended is paid from what the counter went up by."""
    if sight.problem or sight.energy_mj is None:
        return
    if gpu.energy_mj is None or sight.energy_mj < gpu.energy_mj:
        gpu.claimed_mj = 0
    else:
        gpu.claimed_mj = max(0, gpu.claimed_mj - (sight.energy_mj - gpu.energy_mj))
    gpu.energy_mj = sight.energy_mj


def _look_at_attempts(
    state: State, seen: Sequence[GpuSight], began_ms: int, holders: Holders
) -> list[Action]:
    """Those whose payload lives, and that have GPUs that can be looked at."""
    sights = {sight.uuid: sight for sight in seen if not sight.problem}
    places: Places = {}
    for sight in sights.values():
        for process in sight.processes:
            places.setdefault((process.job, process.attempt), []).append((sight.uuid, process))
    actions: list[Action] = []
    for attempt in list(state.attempts.values()):
        if attempt.phase is Phase.FINISHING or not state.uuids_of(attempt):
            continue
        if attempt.usage is None:
            attempt.usage = Usage()
        at_ms = max(began_ms, attempt.usage.at_ms)
        _check_place(state, attempt, places.get((attempt.job, attempt.no), ()), at_ms)
        _add_up(state, attempt, attempt.usage, sights, holders, at_ms)
        actions += _idle(state, attempt, at_ms)
        actions += _give_back(state, attempt, at_ms)
    return actions


def _add_up(
    state: State,
    attempt: Attempt,
    used: Usage,
    sights: dict[str, GpuSight],
    holders: Holders,
    at_ms: int,
) -> None:
    utils: list[int | None] = []
    for part, uuid in state.parts_of(attempt):
        if (sight := sights.get(uuid)) is None:
            utils.append(None)
            continue
        claimed_mj, beside = state.health.of(uuid).claimed_mj, holders[uuid]
        utils.append(usage.add_look(attempt, uuid, part, sight, at_ms, beside, claimed_mj))
    written_ms, used.at_ms = used.at_ms, at_ms
    nothing = utils and all(util is not None and util <= usage.IDLE_PER_CENT for util in utils)
    if nothing and attempt.phase is not Phase.PAUSED:
        used.idle_since_ms = used.idle_since_ms or at_ms
    else:
        used.idle_since_ms = 0
    if at_ms // WRITTEN_MS != written_ms // WRITTEN_MS:
        state.touch_attempt(attempt)


def _check_place(
    state: State, attempt: Attempt, found: Iterable[tuple[str, GpuProcess]], at_ms: int
) -> None:
    """A process of the attempt on a GPU that it was not given (CUDA_VISIBLE_DEVICES overridden)."""
    uuids, used = state.uuids_of(attempt), attempt.usage
    if used is None or "wrong-gpu" in used.told:
        return
    if not all(part.uuids or part.device in state.pool.devices for part in attempt.lease):
        return  # one of its GPUs has left the pool, and may be the one
    for uuid, process in found:
        if uuid not in uuids:
            used.told += ("wrong-gpu",)
            state.touch_attempt(attempt)
            state.tell(
                attempt.job, attempt.no, "wrong-gpu", at_ms,
                pid=process.pid, program=process.name, on=uuid, assigned=uuids,
            )  # fmt: skip
            return


def _idle(state: State, attempt: Attempt, at_ms: int) -> Sequence[Action]:
    policy, used = state.health.policy, attempt.usage
    if used is None or not policy.idle_ms or not used.idle_since_ms:
        return ()
    if at_ms - used.idle_since_ms < policy.idle_ms:
        return ()
    if "idle" not in used.told:
        used.told += ("idle",)
        state.touch_attempt(attempt)
        idle_s = (at_ms - used.idle_since_ms) // 1000
        state.tell(attempt.job, attempt.no, "gpu-idle", at_ms, idle_s=idle_s)
    return stop(state, attempt, "idle", at_ms) if policy.stop_idle else ()


def _give_back(state: State, attempt: Attempt, at_ms: int) -> Sequence[Action]:
    """A guest GPU whose owner has come."""
    policy = state.health.policy
    for part in attempt.lease:
        device = state.pool.devices.get(part.device)
        if device is None or not device.guest or not policy.respect_others:
            continue
        for uuid in device.uuids:
            sight = state.health.of(uuid).sight
            if sight is None or not sight.attributable:
                continue
            for process in sight.processes:
                if not process.job and not is_ignored(process, policy):
                    leave = save_and_leave if state.jobs[attempt.job].checkpoint else stop
                    return leave(state, attempt, "guest", at_ms, owner=describe(process))
    return ()
