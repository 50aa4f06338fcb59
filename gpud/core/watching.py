"""Before a dispatch on GPUs that can be looked at: which may be used, and is a look needed first.

Called by core/dispatching.py. Tells the pool what is blocked and how much memory is free, and asks
for a look where only that stands between a job and a GPU. The reply is an event like any other, and
the dispatch after it goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.actions import Action, LookAtGpus
from gpud.core.health import LOOK_AGAIN_MS, Promise, strangers, without_ours
from gpud.core.state import State

NOT_SEEN = "it is being looked at"
ASK_AGAIN_MS = 30_000  # a watcher always replies; should it not, it is asked again


def device_problems(state: State) -> dict[str, str]:
    """For people: why each device that takes no work takes none, windows aside."""
    holders = _holders(state)
    found = {}
    pool, health = state.pool, state.health
    for key, device in pool.devices.items():
        reason, _ = health.reason(device, holders)
        if reason:
            found[key] = reason
        elif key not in pool.leased and not pool.free_milli(device):
            found[key] = "its GPUs are in use by a job that has them under another name"
        elif any(health.of(uuid).sight is None for uuid in device.uuids):
            found[key] = NOT_SEEN
    return found


def programs_of_others(state: State) -> list[str]:
    """Names of those that keep work from GPUs of the pool."""
    holders, health = _holders(state), state.health
    names: dict[str, None] = {}
    for device in state.pool.devices.values():
        for uuid in device.uuids:
            if (sight := health.of(uuid).sight) is not None:
                found = strangers(without_ours(sight), health.policy, holders.get(uuid, set()))
                names |= dict.fromkeys(process.name for process in found)
    return list(names)


def outside_windows(state: State, now_ms: int) -> dict[str, str]:
    """Devices that take no new job now: of any of their GPUs the window is not open."""
    found: dict[str, str] = {}
    for key, device in state.pool.devices.items() if state.pool.has_gates else ():
        for gate in device.gates:
            if outside := state.gates[gate].outside(now_ms):
                found.setdefault(key, f"outside {outside}")
    return found


def _holders(state: State) -> dict[str, set[tuple[int, int]]]:
    found: dict[str, set[tuple[int, int]]] = {}
    for attempt in state.attempts.values():
        for _, uuid in state.parts_of(attempt):
            found.setdefault(uuid, set()).add((attempt.job, attempt.no))
    return found


def prepare(state: State, now_ms: int, *, for_gpus: bool, for_memory: bool) -> Sequence[Action]:
    """Judge every device; give back the wish for a look, if jobs wait for one. Whether there are
    jobs that could start on a GPU, and such that say how much memory they need.

    Sets `state.look_at_ms`: when jobs wait for GPUs that others use, somebody looks again then.
    """
    pool, health = state.pool, state.health
    holders = _holders(state)
    outside = outside_windows(state, now_ms)
    blocked = dict(outside)
    soon: set[str] = set()
    stale = in_use = False
    for key, device in pool.devices.items():
        if not device.uuids and not device.problem:
            continue
        room = pool.free_milli(device) > 0
        reason, in_a_moment = health.reason(device, holders)
        if reason:
            blocked[key] = reason
            in_use = in_use or (room and not health.is_quarantined(device))
            if in_a_moment and key not in outside:
                soon.add(key)
        elif key not in outside and room and health.is_stale(device, now_ms):
            blocked[key] = NOT_SEEN
            soon.add(key)
            stale = True
    pool.block(blocked, soon, _seen_free(state) if for_memory else {})
    deadlines = []
    look = False
    if for_gpus:
        lately = 0 <= now_ms - health.looked_at_ms < LOOK_AGAIN_MS
        if stale or (in_use and not lately):
            asked = health.asked_at_ms and 0 <= now_ms - health.asked_at_ms < ASK_AGAIN_MS
            look = not asked
            health.asked_at_ms = now_ms if look else health.asked_at_ms
            deadlines.append(health.asked_at_ms + ASK_AGAIN_MS)
        elif in_use:
            deadlines.append(health.looked_at_ms + LOOK_AGAIN_MS)
    state.look_at_ms = min(deadlines, default=0)
    return (LookAtGpus(),) if look else ()


def _seen_free(state: State) -> dict[str, int]:
    """Per device the memory that nobody uses or is promised, in MiB."""
    promises: dict[str, list[Promise]] = {}
    for attempt in state.attempts.values():
        for part in attempt.lease:
            promises.setdefault(part.device, []).append((attempt, part.mib))
    found = {}
    for key, device in state.pool.devices.items():
        if device.uuids:
            free = state.health.seen_free_mib(device, promises.get(key, ()))
            if free is not None:
                found[key] = free
    return found
