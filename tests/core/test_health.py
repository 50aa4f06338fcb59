"""Which GPUs may be used now, and the sentence about each that may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gpud.core.events import AttemptEnded, GpusSeen, HealRequested
from gpud.core.health import (
    NEVER_FOREIGN,
    Gpu,
    GpuPolicy,
    Health,
    Quarantine,
    unaccounted_mib,
    unused_mib,
)
from gpud.core.model import Attempt, JobId, LeasePart, Phase
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State
from gpud.core.watching import device_problems

from .build import BOOT, NOW_MS, A, happens, ready, started, submit
from .draws import BOTH, U

ALICES = GpuProcess(4711, "python", "alice", 11_469)
OURS = GpuProcess(5000, "python", "ann", 8_192, job=7, attempt=1)
NOBODY_KNOWS_WHICH = structs.replace(OURS, job=-1, attempt=0)
HOLDER = {(7, 1)}
SILENT = "the driver does not answer"
BROKEN = Quarantine("it has fallen off the bus", NOW_MS, BOOT)


def reason(sight: GpuSight, policy: GpuPolicy | None = None, holders: object = ()) -> str:
    """What one look at the GPU u says."""
    health = Health(policy or GpuPolicy())
    health.gpus["GPU-u"] = Gpu(sight, seen_at_ms=NOW_MS)
    return health.reason(U, {"GPU-u": set(holders)})[0]


def used_by(*processes: GpuProcess, **fields: object) -> GpuSight:
    return GpuSight("GPU-u", processes=processes, **fields)


def one(job: int) -> Attempt:
    return Attempt(JobId(job), 1, Phase.RUNNING, (), BOOT, NOW_MS)


@pytest.mark.parametrize(
    ("quarantine", "problem", "sight", "sentence"),
    [
        (BROKEN, SILENT, used_by(ALICES, problem="it hung"), "it has fallen off the bus"),
        (None, SILENT, used_by(ALICES, problem="it hung"), "the driver does not answer"),
        (None, "", used_by(ALICES, problem="it hung"), "it hung"),
        (None, "", used_by(ALICES), "used by pid 4711 (python of alice, 11.2 GiB)"),
        (None, "", used_by(), "700 MiB of job 3, which has ended, are being given back"),
    ],
)
def test_the_first_rule_that_holds_is_the_reason(
    quarantine: Quarantine | None, problem: str, sight: GpuSight, sentence: str
) -> None:
    health, left = Health(), {"unreleased_mib": 700, "unreleased_since_ms": NOW_MS}
    health.problem = problem
    health.gpus["GPU-u"] = Gpu(sight, quarantine=quarantine, last_job=JobId(3), **left)
    assert health.reason(U, {})[0] == sentence


# -- rules 1 and 2 --------------------------------------------------------------------------------


def test_a_gpu_that_nobody_can_look_at_is_always_usable() -> None:
    state = ready(A, U)
    happens(state, GpusSeen(NOW_MS - 1, (), SILENT))
    assert device_problems(state) == {"GPU-u": SILENT}
    assert state.attempts[submit(state)].lease == (LeasePart("a", 1000),)


def test_a_quarantine_of_any_of_its_gpus_is_the_reason() -> None:
    health = Health()
    health.of("GPU-v").quarantine = BROKEN
    assert health.reason(BOTH, {})[0] == "it has fallen off the bus"
    assert health.reason(U, {})[0] == ""
    assert [health.is_quarantined(device) for device in (BOTH, U)] == [True, False]


# -- rule 3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "sentence"),
    [
        (ALICES, "used by pid 4711 (python of alice, 11.2 GiB)"),
        (GpuProcess(4711, "python", "alice"), "used by pid 4711 (python of alice)"),
        (GpuProcess(4711, "python", "", 512), "used by pid 4711 (python, 512 MiB)"),
        (GpuProcess(4711, "", "", 1_024), "used by pid 4711 (?, 1 GiB)"),
        (OURS, "used by job 7, pid 5000 (python of ann, 8 GiB), which was not given it"),
        (NOBODY_KNOWS_WHICH, "used by pid 5000 (python of ann, 8 GiB)"),
    ],
)
def test_who_has_no_lease_is_named(process: GpuProcess, sentence: str) -> None:
    assert reason(used_by(process)) == sentence


def test_of_several_the_first_without_a_lease_is_named() -> None:
    bobs = GpuProcess(4712, "julia", "bob")
    assert reason(used_by(OURS, bobs, ALICES), holders=HOLDER) == "used by pid 4712 (julia of bob)"


@pytest.mark.parametrize("process", [OURS, NOBODY_KNOWS_WHICH])
def test_who_has_a_lease_is_no_reason(process: GpuProcess) -> None:
    assert reason(used_by(process), holders=HOLDER) == ""


@pytest.mark.parametrize("holder", [(7, 2), (8, 1)])
def test_the_lease_of_another_attempt_does_not_count(holder: tuple[int, int]) -> None:
    assert "which was not given it" in reason(used_by(OURS), holders={holder})


@pytest.mark.parametrize("name", [*NEVER_FOREIGN, "dcgm"])
def test_some_programs_are_no_reason(name: str) -> None:
    assert reason(used_by(GpuProcess(900, name, "root", 400)), GpuPolicy(ignored=("dcgm",))) == ""


@pytest.mark.parametrize(
    ("sight", "policy"),
    [
        (used_by(structs.replace(ALICES, compute=False)), GpuPolicy()),  # it only draws
        (used_by(ALICES, attributable=False), GpuPolicy()),
        (used_by(ALICES, OURS), GpuPolicy(respect_others=False)),
    ],
)
def test_others_are_not_always_a_reason(sight: GpuSight, policy: GpuPolicy) -> None:
    assert reason(sight, policy) == ""


@pytest.mark.parametrize(
    ("mib", "tolerated"), [(0, True), (100, True), (101, False), (None, False)]
)
def test_a_little_memory_is_tolerated(mib: int | None, tolerated: bool) -> None:
    sight = used_by(GpuProcess(900, "python", "alice", mib))
    assert (reason(sight, GpuPolicy(tolerance_mib=100)) == "") == tolerated


def test_of_a_job_without_a_lease_nothing_is_tolerated() -> None:
    small = structs.replace(OURS, mib=10)
    assert "job 7" in reason(used_by(small), GpuPolicy(tolerance_mib=100))


# -- rule 4 ---------------------------------------------------------------------------------------


def after_a_job(used_mib: int) -> State:
    """The job on u has ended a second ago; before it the driver had 300 MiB, now so many."""
    state = ready(U)
    look(state, 300, NOW_MS - 2)
    job = submit(state)
    started(state, job)
    happens(state, AttemptEnded(job, 1, NOW_MS + 1_000, exit_code=0), now_ms=NOW_MS + 1_000)
    look(state, used_mib, NOW_MS + 2_000)
    return state


def look(state: State, used_mib: int, now_ms: int) -> None:
    sight = GpuSight("GPU-u", total_mib=40_000, used_mib=used_mib, free_mib=40_000 - used_mib)
    happens(state, GpusSeen(now_ms - 1, (sight,)), now_ms=now_ms)


def test_memory_that_is_not_given_back_for_long_is_a_quarantine_until_it_is() -> None:
    state, found = after_a_job(2_348), NOW_MS + 2_000
    what = "2 GiB of job 1, which has ended, are"
    look(state, 2_348, found + 59_999)
    assert device_problems(state) == {"GPU-u": f"{what} being given back"}
    assert not state.health.is_quarantined(U)
    look(state, 2_348, found + 60_000)
    kept = Quarantine(f"{what} still in use", found + 60_000, BOOT, base_mib=300)
    assert state.take_changes().quarantines == {"GPU-u": kept}
    look(state, 812, found + 70_000)
    assert state.take_changes().quarantines == {"GPU-u": None}
    assert device_problems(state) == {}


def test_a_quarantine_for_memory_outlives_a_restart_and_not_the_memory() -> None:
    state = ready(U)
    kept = Quarantine("2 GiB of job 1, which has ended, are still in use", 1, BOOT, base_mib=300)
    state.load([], [], {"GPU-u": kept})
    look(state, 2_348, NOW_MS)
    assert device_problems(state) == {"GPU-u": kept.why}
    look(state, 300, NOW_MS + 10)
    assert device_problems(state) == {}


@pytest.mark.parametrize(("used_mib", "is_back"), [(250, True), (812, True), (813, False)])
def test_half_a_gib_more_than_before_is_tolerated(used_mib: int, is_back: bool) -> None:
    state = after_a_job(used_mib)
    assert (device_problems(state) == {}) == is_back
    assert state.health.reason(U, {})[1] != is_back, "it will be over in a moment"


def test_memory_that_is_given_back_is_no_reason_any_more() -> None:
    state = after_a_job(2_348)
    look(state, 300, NOW_MS + 90_000)
    assert device_problems(state) == {}


def test_after_a_heal_the_memory_in_use_is_usual() -> None:
    state = after_a_job(2_348)
    happens(state, HealRequested(9, ("GPU-u",)), now_ms=NOW_MS + 3_000)
    assert device_problems(state) == {"GPU-u": "it is being looked at"}
    assert state.health.is_stale(U, NOW_MS + 3_000)
    look(state, 2_348, NOW_MS + 4_000)
    assert device_problems(state) == {}
    assert state.health.of("GPU-u").base_mib == 2_348


# -- rule 5 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "is_stale"),
    [
        (Gpu(), True),  # never seen
        (Gpu(seen_at_ms=NOW_MS - 1, heard_at_ms=NOW_MS), False),
        (Gpu(seen_at_ms=NOW_MS - 1), True),  # seen, and not to be relied on
        (Gpu(seen_at_ms=500, heard_at_ms=NOW_MS, ended_at_ms=499), False),
        (Gpu(seen_at_ms=500, heard_at_ms=NOW_MS, ended_at_ms=500), True),
        (Gpu(seen_at_ms=500, heard_at_ms=NOW_MS, ended_at_ms=501), True),
        (Gpu(seen_at_ms=500, heard_at_ms=NOW_MS - 2_000), False),
        (Gpu(seen_at_ms=500, heard_at_ms=NOW_MS - 2_001), True),
        (Gpu(seen_at_ms=500, heard_at_ms=NOW_MS + 1), True),  # the clock was set back
    ],
)
def test_a_look_from_before_the_end_or_long_ago_does_not_count(gpu: Gpu, is_stale: bool) -> None:
    health = Health()
    health.gpus = {"GPU-u": Gpu(seen_at_ms=NOW_MS - 1, heard_at_ms=NOW_MS), "GPU-v": gpu}
    assert health.is_stale(BOTH, NOW_MS) == is_stale
    assert not health.is_stale(U, NOW_MS)


@pytest.mark.parametrize("seen", [True, False])
def test_a_look_that_was_judged_with_the_attempt_there_does_not_count(seen: bool) -> None:
    health = Health()
    health.gpus["GPU-u"] = Gpu(seen_at_ms=NOW_MS, heard_at_ms=NOW_MS)
    health.note_end(["GPU-u"], JobId(3), NOW_MS - 5, seen=seen)
    assert health.is_stale(U, NOW_MS) != seen
    assert health.of("GPU-u").last_job == 3


def test_of_two_ends_the_later_counts() -> None:
    health = Health()
    for job, at_ms in [(1, 700), (2, 600)]:
        health.note_end(["GPU-u"], JobId(job), at_ms, seen=True)
    assert health.of("GPU-u").ended_at_ms == 700


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sight", "unused"),
    [
        (used_by(), 20_000),  # 10,000 are promised to job 7, and as much to job 8
        (used_by(OURS, used_mib=8_500), 11_808),
        (used_by(structs.replace(OURS, mib=12_000)), 10_000),  # more than promised
        (used_by(structs.replace(OURS, attempt=2)), 20_000),  # of another attempt
        (used_by(structs.replace(OURS, mib=None), used_mib=8_500), 11_500),
        (used_by(NOBODY_KNOWS_WHICH, used_mib=8_500), 11_500),
        (used_by(used_mib=8_500, attributable=False), 11_500),
        (used_by(used_mib=30_000, attributable=False), 0),
        (used_by(attributable=False), 20_000),  # the driver does not say
    ],
)
def test_what_is_promised_and_not_in_use_yet(sight: GpuSight, unused: int) -> None:
    assert unused_mib(sight, [(one(7), 10_000), (one(8), 10_000)]) == unused


def test_of_a_group_the_gpu_with_the_least_memory_counts() -> None:
    health, promises = Health(), [(one(7), 10_000)]
    assert health.seen_free_mib(BOTH, promises) is None
    health.of("GPU-u").sight = used_by(OURS, free_mib=30_000)  # 1,808 of the promise are not used
    health.of("GPU-v").sight = GpuSight("GPU-v", free_mib=39_000)
    assert health.seen_free_mib(BOTH, promises) == 28_192
    assert health.seen_free_mib(BOTH, []) == 30_000


memory = st.tuples(st.integers(0, 20_000), st.integers(0, 20_000))


@given(used=memory, promised=memory, attributable=st.booleans())
def test_no_promise_makes_memory(
    used: tuple[int, int], promised: tuple[int, int], attributable: bool
) -> None:
    ours = [GpuProcess(job, "", "", mib, job=job, attempt=1) for job, mib in enumerate(used, 7)]
    health, all_used, all_promised = Health(), sum(used), sum(promised)
    health.of("GPU-u").sight = used_by(
        *ours, used_mib=all_used, free_mib=50_000, attributable=attributable
    )
    free = health.seen_free_mib(U, [(one(job), mib) for job, mib in enumerate(promised, 7)])
    assert 50_000 - all_promised <= free <= 50_000 - max(0, all_promised - all_used)


@pytest.mark.parametrize(
    ("sight", "mib"),
    [
        (used_by(used_mib=300), 300),
        (used_by(ALICES, OURS, used_mib=20_000), 339),
        (used_by(ALICES, used_mib=11_000), 0),  # a process is counted more than the GPU
        (used_by(GpuProcess(900, "python", "alice"), used_mib=300), None),
    ],
)
def test_memory_of_nobody_that_the_driver_lists(sight: GpuSight, mib: int | None) -> None:
    assert unaccounted_mib(sight) == mib
