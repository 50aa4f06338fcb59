"""All metrics as they are now, as a page of text.

Called by daemon/metering.py for each scrape. Reads committed state and asks for nothing: no query,
no look at a GPU. What it costs grows with GPUs, sources, live attempts and different requests in
the queue, never with the length of the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gpud import __version__
from gpud.core.model import Device, JobState, Outcome, Phase
from gpud.core.state import State
from gpud.core.watching import device_problems, outside_windows
from gpud.metrics import catalogue as c
from gpud.metrics.counting import Counts
from gpud.metrics.text import Family, Sample, page
from gpud.ports import Measured

MIB = 1 << 20
KINDS = ("gpu", "cpu")

Filled = tuple[Family, Iterable[Sample]]


def read(daemon: Measured, counts: Counts) -> str:
    return page(
        [
            *_of_itself(daemon, counts),
            *_of_queue(daemon, counts),
            *_of_attempts(daemon.state, counts),
            *_of_slots(daemon.state, daemon.now_ms()),
            *_of_gpus(daemon.state),
            *_of_sources(daemon),
        ]
    )


def _of_itself(daemon: Measured, counts: Counts) -> Iterator[Filled]:
    state = daemon.state
    storage = bool(daemon.storage_problem)
    yield c.BUILD, [((__version__,), 1)]
    yield c.START_TIME, [((), daemon.started_at_ms / 1000)]
    yield c.DRAINING, [((), int(state.draining))]
    yield c.STORAGE_PROBLEM, [((), int(storage))]
    # While the database does not work, the runner is not asked: that is one problem, not two.
    yield c.RUNNER_PROBLEM, [((), int(bool(state.runner_problem) and not storage))]
    yield c.SHORTAGE, [((), int(bool(state.shortage.why)))]
    yield c.PROBLEMS, [((), len(daemon.problems()))]
    yield c.SET_ASIDE, [((), daemon.set_aside_count())]
    yield c.COMMIT, [((), counts.commit)]


def _of_queue(daemon: Measured, counts: Counts) -> Iterator[Filled]:
    states, outcomes = daemon.store.counts()
    live = [state for state in JobState if state is not JobState.DONE]
    yield c.JOBS, [((state.value,), states[state.value]) for state in live]
    yield c.DONE, [((outcome.value,), outcomes[outcome.value]) for outcome in Outcome]
    oldest = oldest_ms(daemon.state, daemon.now_ms())
    yield c.OLDEST, [((kind,), oldest[kind] / 1000) for kind in KINDS]
    yield c.SUBMITTED, [((), counts.submitted)]
    yield c.ENDED, [((outcome,), count) for outcome, count in counts.jobs_ended.items()]
    yield c.WAIT, [((), counts.wait)]


def oldest_ms(state: State, now_ms: int) -> dict[str, int]:
    """By kind, the longest wait, since its submit or since the moment before which it was not to
    begin, of the first jobs of all rows that no gate holds back; 0: there is none."""
    waits = dict.fromkeys(KINDS, 0)
    for bay in [*state.ready.by_kind.values()]:
        kind = "gpu" if bay.on_gpus else "cpu"
        for row in [*bay.rows.values()]:
            first = state.ready.first(row, now_ms)
            if first is not None:
                job = state.jobs[first[0][-1]]
                wait_ms = now_ms - max(job.submitted_at_ms, job.begin_ms)
                waits[kind] = max(waits[kind], wait_ms)
    return waits


def _of_attempts(state: State, counts: Counts) -> Iterator[Filled]:
    phases = Counter(attempt.phase for attempt in state.attempts.values())
    yield c.ATTEMPTS, [((phase.value,), phases[phase]) for phase in Phase]
    yield c.STARTED, [((), counts.started)]
    yield c.ATTEMPTS_ENDED, [((word,), count) for word, count in counts.attempts_ended.items()]
    yield c.RETRIED, [((), counts.retried)]
    yield c.START, [((), counts.start)]
    yield c.RUN, [((), counts.run)]


def _of_slots(state: State, now_ms: int) -> Iterator[Filled]:
    pool = state.pool
    idle = outside_windows(state, now_ms) | device_problems(state)
    if pool.unknown:
        idle |= {key: pool.unknown for key, device in pool.devices.items() if device.ids}
    slots, used, free = Counter[str](), Counter[str](), Counter[str]()
    for key, device in pool.devices.items():
        kind = "gpu" if device.ids else "cpu"
        slots[kind] += device.slots
        used[kind] += pool.leased.get(key, 0) * device.slots
        if key not in idle:
            free[kind] += pool.free_milli(device) * device.slots
    yield c.SLOTS, [((kind,), slots[kind]) for kind in KINDS]
    yield c.SLOTS_USED, [((kind,), used[kind] / 1000) for kind in KINDS]
    yield c.SLOTS_FREE, [((kind,), free[kind] / 1000) for kind in KINDS]
    devices = _named(device for device in pool.devices.values() if device.ids)
    promised, health = pool.promised, state.health
    yield c.LEASED, [((name,), pool.leased.get(d.key, 0) / 1000) for name, d in devices]
    yield c.PROMISED, [((name,), promised.get(d.key, 0) * MIB) for name, d in devices]
    yield c.TAKES_WORK, [((name,), int(d.key not in idle)) for name, d in devices]
    yield c.QUARANTINED, [((name,), int(health.is_quarantined(d))) for name, d in devices]


def _named(devices: Iterable[Device]) -> list[tuple[str, Device]]:
    """By what people call them; by their keys where two are called the same."""
    found = list(devices)
    labels = Counter(device.label for device in found)
    return [(d.label if labels[d.label] == 1 else d.key, d) for d in found]


def _of_gpus(state: State) -> Iterator[Filled]:
    """What the last look has seen; nothing of a GPU that could not be looked at."""
    gpus = [
        (name, uuid, device.model, state.health.of(uuid))
        for name, device in _named(device for device in state.pool.devices.values() if device.ids)
        for uuid in dict.fromkeys(device.uuids)
    ]
    yield c.GPU, [((name, uuid, model), 1) for name, uuid, model, _ in gpus]
    sights = [
        ((name, uuid), gpu.sight)
        for name, uuid, _, gpu in gpus
        if gpu.sight is not None and not gpu.sight.problem
    ]

    def seen(family: Family, field: str, unit: float) -> Filled:
        values = [(labels, getattr(sight, field)) for labels, sight in sights]
        return family, [(at, round(value * unit, 6)) for at, value in values if value is not None]

    yield seen(c.GPU_MEMORY, "total_mib", MIB)
    yield seen(c.GPU_MEMORY_USED, "used_mib", MIB)
    yield seen(c.GPU_UTILIZATION, "util", 0.01)
    yield seen(c.GPU_TEMPERATURE, "temperature_c", 1)
    yield seen(c.GPU_POWER, "power_mw", 0.001)
    yield seen(c.GPU_ENERGY, "energy_mj", 0.001)
    looks = [((name, uuid), gpu.seen_at_ms) for name, uuid, _, gpu in gpus]
    yield c.GPU_SEEN, [(at, seen_ms / 1000) for at, seen_ms in looks if seen_ms]


def _of_sources(daemon: Measured) -> Iterator[Filled]:
    views = [((view.name,), view) for view in daemon.sources()]
    yield c.SOURCE, [((*name, view.kind), 1) for name, view in views]
    yield c.SOURCE_UP, [(name, int(not view.problem)) for name, view in views]
    yield c.SOURCE_STOPPED, [(name, int(view.stopped)) for name, view in views]
    yield c.SOURCE_TAKEN, [(name, view.taken) for name, view in views]
    yield c.SOURCE_WAITING, [(name, view.waiting) for name, view in views]
    yield (
        c.SOURCE_READ,
        [(name, view.last_read_at_ms / 1000) for name, view in views if view.last_read_at_ms],
    )
