"""What a look at the GPUs changes, seen from outside: through `scheduler.step`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs

from gpud.core.actions import Action, Answer, LookAtGpus, StartAttempt, StopAttempt
from gpud.core.events import (
    AttemptEnded,
    DevicesChanged,
    GpuBroke,
    GpusSeen,
    HealRequested,
    RunnerReady,
)
from gpud.core.explain import explain
from gpud.core.health import GpuPolicy, Quarantine
from gpud.core.model import Device, JobId, Request, RetryPolicy
from gpud.core.sight import NOT_LISTED, GpuProcess, GpuSight
from gpud.core.state import State
from gpud.core.watching import device_problems

from .build import BOOT, NOW_MS, happens, only, ready, started, submit, unmet
from .draws import BOTH, GUEST, U, V

FIRST = JobId(1)
BOBS = GpuProcess(4711, "python", "bob", 500)
FELL = "Xid 79: it has fallen off the bus"


def free(uuid: str = "GPU-u", **fields: object) -> GpuSight:
    """Half busy, and 300 MiB are the driver's own."""
    known = {"total_mib": 40_000, "used_mib": 300, "free_mib": 39_700, "util": 50}
    return GpuSight(uuid, **(known | fields))


def seen(state: State, *sights: GpuSight, at_ms: int, problem: str = "") -> list[Action]:
    """A look that took a millisecond."""
    return happens(state, GpusSeen(at_ms, sights, problem), now_ms=at_ms + 1)


def running(*devices: Device, policy: GpuPolicy | None = None, **fields: object) -> State:
    """The first job runs on the first of them."""
    state = ready()
    happens(state, DevicesChanged(devices, policy or GpuPolicy()))
    submit(state, **fields)
    seen(state, *(free(uuid) for device in devices for uuid in device.uuids), at_ms=NOW_MS - 1)
    started(state, FIRST)
    return state


def end(state: State, at_ms: int) -> None:
    happens(state, AttemptEnded(FIRST, 1, at_ms, lost="nobody saw its end"), now_ms=at_ms)


def told(state: State, kind: str) -> list[dict[str, object]]:
    return [story.detail for story in state.changes.story if story.kind == kind]


def starts(actions: Sequence[Action]) -> list[tuple[int, int]]:
    return [(a.job, a.attempt) for a in actions if isinstance(a, StartAttempt)]


def test_a_look_that_began_before_the_last_one_is_ignored() -> None:
    state = ready(U)
    seen(state, free(), at_ms=NOW_MS)
    happens(state, GpusSeen(NOW_MS - 1, (free(processes=(BOBS,)),)), now_ms=NOW_MS + 5)
    assert state.stale == 1
    assert device_problems(state) == {}


def test_after_the_clock_was_set_back_looks_are_not_late() -> None:
    state = ready(U)
    seen(state, free(), at_ms=NOW_MS + 3_600_000)
    seen(state, free(processes=(BOBS,)), at_ms=NOW_MS)
    assert state.stale == 0
    assert list(device_problems(state)) == ["GPU-u"]


@pytest.mark.parametrize(
    ("problem", "why"),
    [("", NOT_LISTED), ("the driver is loading", "the driver is loading")],
)
def test_a_gpu_that_a_look_did_not_show_takes_no_work(problem: str, why: str) -> None:
    state = ready(U)
    job = submit(state)
    assert starts(seen(state, at_ms=NOW_MS, problem=problem)) == []
    assert explain(state, job, NOW_MS) == f"waits for a slot; GPU 0 takes no work: {why}"
    assert starts(seen(state, free(), at_ms=NOW_MS + 10)) == [(job, 1)]


# -- quarantine -----------------------------------------------------------------------------------


def test_what_a_look_finds_broken_is_quarantined_and_stays_so() -> None:
    state = ready(U, V)
    seen(state, GpuSight("GPU-u", "it must be reset", broken=True), free("GPU-v"), at_ms=NOW_MS)
    found = Quarantine("it must be reset", NOW_MS + 1, BOOT)
    assert state.changes.quarantines == {"GPU-u": found}
    assert told(state, "gpu-quarantined") == [{"gpu": "GPU-u", "why": "it must be reset"}]
    seen(state, free(), free("GPU-v"), at_ms=NOW_MS + 10)
    assert device_problems(state) == {"GPU-u": "it must be reset"}


def test_trouble_that_may_pass_is_no_quarantine() -> None:
    state = ready(U)
    seen(state, GpuSight("GPU-u", "it is being reset"), at_ms=NOW_MS)
    assert state.changes.quarantines == {}
    seen(state, free(), at_ms=NOW_MS + 10)
    assert device_problems(state) == {}


def test_of_two_reasons_for_a_quarantine_the_first_stays() -> None:
    state = ready(U)
    happens(state, GpuBroke("GPU-u", NOW_MS, FELL))
    happens(state, GpuBroke("GPU-u", NOW_MS, "Xid 48: a double bit error"), now_ms=NOW_MS + 1)
    seen(state, GpuSight("GPU-u", "it must be reset", broken=True), at_ms=NOW_MS + 2)
    assert state.changes.quarantines == {"GPU-u": Quarantine(FELL, NOW_MS, BOOT)}
    assert len(told(state, "gpu-quarantined")) == 1


@pytest.mark.parametrize(
    ("named", "healed"), [(("GPU-u",), ["GPU-u"]), ((), ["GPU-u", "GPU-v"]), (("GPU-w",), [])]
)
def test_a_person_heals_some_or_all(named: tuple[str, ...], healed: list[str]) -> None:
    state = ready(U, V)
    happens(state, *(GpuBroke(uuid, NOW_MS, FELL) for uuid in ("GPU-u", "GPU-v")))
    state.take_changes()
    actions = happens(state, HealRequested(5, named))
    assert only(LookAtGpus, actions).afresh
    assert only(Answer, actions).count == len(healed)
    assert state.changes.quarantines == dict.fromkeys(healed)
    assert [detail["gpu"] for detail in told(state, "gpu-healed")] == healed
    looked_at = "it is being looked at"
    assert device_problems(state) == {u: looked_at if u in healed else FELL for u in (U.key, V.key)}


def test_a_healed_gpu_takes_work_after_the_next_look() -> None:
    state = ready(U)
    seen(state, free(), at_ms=NOW_MS - 1)
    happens(state, GpuBroke("GPU-u", NOW_MS, FELL))
    job = submit(state)
    assert starts(happens(state, HealRequested(5, ("GPU-u",)))) == []
    assert starts(seen(state, free(), at_ms=NOW_MS + 1)) == [(job, 1)]


@pytest.mark.parametrize(("boot", "lifted"), [(BOOT, False), ("boot-2", True)])
def test_another_boot_lifts_a_quarantine(boot: str, lifted: bool) -> None:
    state = unmet(U)
    state.load([], [], {"GPU-u": Quarantine(FELL, 7, BOOT)})
    happens(state, RunnerReady(boot))
    assert state.changes.quarantines == ({"GPU-u": None} if lifted else {})
    assert device_problems(state) == {"GPU-u": "it is being looked at" if lifted else FELL}


def test_a_quarantine_from_before_the_boot_was_known_is_of_this_boot() -> None:
    state = unmet(U)
    happens(state, GpuBroke("GPU-u", NOW_MS, FELL))
    happens(state, RunnerReady(BOOT))
    assert state.changes.quarantines == {"GPU-u": Quarantine(FELL, NOW_MS, BOOT)}


# -- the wrong GPU --------------------------------------------------------------------------------


def stray(attempt: int = 1) -> GpuSight:
    """A process of the first job on v."""
    return free("GPU-v", processes=(GpuProcess(4800, "python", "ann", 500, None, FIRST, attempt),))


def test_an_attempt_on_the_wrong_gpu_is_told_of_once() -> None:
    state = running(U, V, retry=RetryPolicy(1, backoff_s=0))
    for at_ms in (NOW_MS, NOW_MS + 2_000):
        seen(state, free(), stray(), at_ms=at_ms)
    found = {"pid": 4800, "program": "python", "on": "GPU-v", "assigned": ["GPU-u"]}
    assert told(state, "wrong-gpu") == [found]
    end(state, NOW_MS + 3_000)
    seen(state, free(), free("GPU-v"), at_ms=NOW_MS + 3_001)
    assert state.attempts[FIRST].no == 2
    seen(state, free(), stray(attempt=2), at_ms=NOW_MS + 5_000)
    assert told(state, "wrong-gpu") == [found, found]


@pytest.mark.parametrize("where", [BOTH, V])
def test_an_attempt_on_its_own_gpu_is_on_no_wrong_one(where: Device) -> None:
    state = running(where)
    seen(state, free(), stray(), at_ms=NOW_MS)
    assert told(state, "wrong-gpu") == []


def test_when_one_of_its_gpus_has_left_the_pool_nobody_knows_which_is_wrong() -> None:
    state = running(U, V, request=Request(2))
    happens(state, DevicesChanged((U,)))
    seen(state, free(), stray(), at_ms=NOW_MS)
    assert told(state, "wrong-gpu") == []


# -- idle -----------------------------------------------------------------------------------------

TEN_S = GpuPolicy(idle_ms=10_000)


def looks(state: State, *utils: tuple[int, int | None]) -> list[Action]:
    """One so many milliseconds after the start, with that utilisation; and so on."""
    return [a for ms, u in utils for a in seen(state, free(util=u), at_ms=NOW_MS + ms)]


def test_an_idle_job_is_pointed_out_once_and_goes_on() -> None:
    state = running(U, policy=TEN_S)
    assert looks(state, (1_000, 0), (10_999, 0)) == told(state, "gpu-idle") == []
    assert not looks(state, (11_500, 0), (30_000, 0), (31_000, 90), (32_000, 0), (60_000, 0))
    assert told(state, "gpu-idle") == [{"idle_s": 10}]


@pytest.mark.parametrize("between", [1, None])
def test_work_and_what_nobody_knows_end_a_time_of_idling(between: int | None) -> None:
    state = running(U, policy=TEN_S)
    looks(state, (1_000, 0), (6_000, between), (7_000, 0), (16_999, 0))
    assert told(state, "gpu-idle") == []
    looks(state, (17_000, 0))
    assert told(state, "gpu-idle") == [{"idle_s": 10}]


def test_without_a_time_limit_nobody_is_idle() -> None:
    state = running(U, policy=GpuPolicy(idle_ms=0, stop_idle=True))
    assert looks(state, (1_000, 0), (10_000_000, 0)) == []
    assert told(state, "gpu-idle") == []


def test_an_idle_job_is_stopped_where_the_policy_says_so() -> None:
    state = running(U, policy=GpuPolicy(idle_ms=10_000, stop_idle=True), grace_s=7.0)
    assert looks(state, (1_000, 0), (11_000, 0), (13_000, 0)) == [StopAttempt(FIRST, 1, 7.0)]
    assert told(state, "stopped-by-gpud") == [{"reason": "idle"}]


# -- guests ---------------------------------------------------------------------------------------


def test_a_guest_gpu_is_given_back_to_its_owner_by_name() -> None:
    state = running(GUEST, grace_s=7.0)
    owned = free("GPU-x", processes=(BOBS,))
    assert seen(state, owned, at_ms=NOW_MS) == [StopAttempt(FIRST, 1, 7.0)]
    owner = "pid 4711 (python of bob, 500 MiB)"
    assert told(state, "stopped-by-gpud") == [{"reason": "guest", "owner": owner}]
    assert seen(state, owned, at_ms=NOW_MS + 2_000) == []


@pytest.mark.parametrize(
    ("sight", "policy"),
    [
        (free("GPU-x", processes=(BOBS,)), GpuPolicy(respect_others=False)),
        (free("GPU-x", processes=(BOBS,)), GpuPolicy(ignored=("python",))),
        (free("GPU-x", processes=(BOBS,), attributable=False), GpuPolicy()),
        (free("GPU-x", processes=(structs.replace(BOBS, job=-1),)), GpuPolicy()),
        (free("GPU-u", processes=(BOBS,)), GpuPolicy()),  # nobody's guest GPU
    ],
)
def test_not_everybody_is_an_owner(sight: GpuSight, policy: GpuPolicy) -> None:
    state = running({"GPU-x": GUEST, "GPU-u": U}[sight.uuid], policy=policy)
    assert seen(state, sight, at_ms=NOW_MS) == []


# -- memory ---------------------------------------------------------------------------------------


def base_after(state: State, *used: tuple[int, int]) -> int | None:
    for ms, used_mib in used:
        seen(state, free(used_mib=used_mib), at_ms=NOW_MS + ms)
    return state.health.of("GPU-u").base_mib


def test_what_is_in_use_while_nothing_runs_is_usual() -> None:
    state = ready(U)
    assert base_after(state, (0, 300), (10, 5_000)) == 5_000
    assert base_after(state, (20, 700)) == 700


def test_what_a_job_uses_or_leaves_is_not_usual() -> None:
    state = running(U)
    assert base_after(state, (10, 5_000)) == 300
    end(state, NOW_MS + 20)
    assert base_after(state, (19, 300), (30, 900)) == 300  # a look from before the end, and after
    assert list(device_problems(state)) == ["GPU-u"]
    assert base_after(state, (40, 500)) == 300
    assert device_problems(state) == {}


@pytest.mark.parametrize("attributable", [True, False])
def test_where_processes_cannot_be_told_apart_what_stays_becomes_usual(attributable: bool) -> None:
    state = running(U, policy=GpuPolicy(release_wait_ms=60_000))
    end(state, NOW_MS + 20)
    found = NOW_MS + 31  # heard of
    for at_ms in (found, found + 59_999, found + 60_000):
        seen(state, free(used_mib=5_000, attributable=attributable), at_ms=at_ms - 1)
        blocked = attributable or at_ms < found + 60_000
        assert list(device_problems(state)) == (["GPU-u"] if blocked else [])
    assert state.health.of("GPU-u").base_mib == (300 if attributable else 5_000)
