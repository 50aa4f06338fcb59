"""Ends that are no fault of the job, and ends that wait for a look before anybody can say so."""

from __future__ import annotations

import pytest
from msgspec import structs

from gpud.core.actions import Action, ForgetAttempt, LookAtGpus, StartAttempt, StopAttempt
from gpud.core.events import (
    AttemptEnded,
    CancelRequested,
    DevicesChanged,
    Event,
    GpuBroke,
    GpusSeen,
    HealRequested,
    Tick,
)
from gpud.core.explain import explain
from gpud.core.health import GpuPolicy
from gpud.core.model import AUTO_VRAM, Device, JobId, JobState, Phase, Request, RetryPolicy
from gpud.core.scheduler import next_deadline
from gpud.core.sight import GpuProcess, GpuSight
from gpud.core.state import State

from .build import NOW_MS, A, happens, only, ready, started, submit
from .draws import GUEST, HALVES, U, V

FIRST = JobId(1)
FELL = "Xid 79: it has fallen off the bus"
TWICE = RetryPolicy(2, backoff_s=0)
ON_OOM = RetryPolicy(2, backoff_s=0, on=(), oom=True)
BROKEN = GpuSight("GPU-u", "it must be reset", broken=True)
ALONE = "a GPU to itself"
NOTHING = "nothing: it had its GPUs to itself"
AUTO_KNOWN = Request(vram_mib=AUTO_VRAM, likeness="x")
AUTO_NEW = Request(vram_mib=AUTO_VRAM, likeness="new")
LARGE = structs.replace(V, memory_mib=80_000)
OWNED = GpuSight("GPU-x", processes=(GpuProcess(4711, "python", "bob", 500),))


def at(ms: int, state: State, event: Event) -> list[Action]:
    """So many milliseconds after NOW_MS."""
    return happens(state, event, now_ms=NOW_MS + ms)


def seen(ms: int, state: State, *sights: GpuSight) -> list[Action]:
    """A look that began a millisecond before. All other GPUs are well."""
    uuids = [uuid for device in state.pool.devices.values() for uuid in device.uuids]
    found = {uuid: GpuSight(uuid, used_mib=300, free_mib=39_700, util=0) for uuid in uuids}
    found |= {sight.uuid: sight for sight in sights}
    return at(ms, state, GpusSeen(NOW_MS + ms - 1, tuple(found.values())))


def running(*devices: Device, policy: GpuPolicy | None = None, **fields: object) -> State:
    """The first job runs on the first device that suits it."""
    state = ready()
    happens(state, DevicesChanged(devices, policy or GpuPolicy()))
    state.pool.usual_mib["x"] = 8_000  # of earlier runs
    submit(state, **fields)
    seen(0, state)
    started(state, FIRST)
    return state


def end(ms: int, state: State, **how: object) -> list[Action]:
    no = state.attempts[FIRST].no
    return at(ms, state, AttemptEnded(FIRST, no, NOW_MS + ms, **(how or {"exit_code": 1})))


def told(state: State) -> list[dict[str, object]]:
    """What the first job's story says of the ends of its attempts."""
    return [story.detail for story in state.changes.story if story.kind == "ended"]


def ends(state: State) -> list[tuple[object, object]]:
    return [(detail["outcome"], detail.get("why")) for detail in told(state)]


# -- an end waits for a look ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "outcome"), [({"exit_code": 1}, "failed"), ({"signal": 9}, "killed")]
)
def test_a_bad_end_keeps_the_gpu_until_it_is_looked_at(how: dict[str, int], outcome: str) -> None:
    state = running(U)
    following = submit(state)
    assert end(10, state, **how) == [ForgetAttempt(FIRST, 1), LookAtGpus()]
    assert explain(state, FIRST, NOW_MS) == "has ended on GPU 0, which is being looked at"
    assert next_deadline(state) == NOW_MS + 15_010
    assert only(StartAttempt, seen(12, state)).job == following
    assert ends(state) == [(outcome, None)]


@pytest.mark.parametrize("broke", [False, True])
@pytest.mark.parametrize(
    ("how", "outcome"),
    [({"exit_code": 0}, "succeeded"), ({"signal": 15, "timed_out": True}, "timed-out")],
)
def test_other_ends_are_judged_at_once(how: dict[str, object], outcome: str, broke: bool) -> None:
    """Who stands still on a broken GPU runs past the time limit: that is no fault of the job."""
    state = running(U, retry=RetryPolicy(2, on=()))
    if broke:
        at(5, state, GpuBroke("GPU-u", NOW_MS + 5, FELL))
    assert LookAtGpus() not in end(10, state, **how)
    excused = broke and outcome == "timed-out"
    assert ends(state) == [(outcome, f"its GPU is broken: {FELL}" if excused else None)]
    assert state.changes.jobs[FIRST].state is (JobState.QUEUED if excused else JobState.DONE)


def test_memory_of_a_job_that_failed_is_waited_for_as_of_any_other() -> None:
    state = running(U)
    following = submit(state)
    end(10, state)
    left = GpuSight("GPU-u", used_mib=20_000, free_mib=20_000)
    assert not any(isinstance(action, StartAttempt) for action in seen(20, state, left))
    assert only(StartAttempt, seen(30, state)).job == following


def test_where_nothing_can_be_seen_a_bad_end_is_judged_at_once() -> None:
    state = running(A)
    assert end(10, state) == [ForgetAttempt(FIRST, 1)]
    assert ends(state) == [("failed", None)]


def test_a_look_that_began_before_the_end_says_nothing_about_it() -> None:
    state = running(U)
    end(10, state)
    seen(11, state)
    assert state.attempts[FIRST].phase is Phase.FINISHING
    seen(12, state)
    assert ends(state) == [("failed", None)]


def test_an_end_that_is_told_again_changes_nothing() -> None:
    state = running(U)
    end(10, state, signal=9)
    assert end(11, state, exit_code=0) == [ForgetAttempt(FIRST, 1)]
    seen(12, state)
    assert ends(state) == [("killed", None)]


def test_without_a_look_it_is_judged_after_fifteen_seconds() -> None:
    state = running(U)
    end(10, state)
    at(15_009, state, Tick())
    assert state.attempts[FIRST].phase is Phase.FINISHING
    at(15_010, state, Tick())
    assert ends(state) == [("failed", None)]


@pytest.mark.parametrize("event", [GpusSeen(NOW_MS + 12, (), "no answer"), DevicesChanged((V,))])
def test_where_no_look_can_come_it_is_judged_without_one(event: Event) -> None:
    state = running(U, V)
    end(10, state)
    at(13, state, event)
    assert ends(state) == [("failed", None)]


def test_an_end_in_the_future_is_one_of_now() -> None:
    """The clock was set back."""
    state = running(U)
    at(10, state, AttemptEnded(FIRST, 1, NOW_MS + 3_600_000, exit_code=1))
    seen(12, state)  # began at 11, and from now on the end was at 12
    seen(14, state)
    assert ends(state) == [("failed", None)]


def test_a_cancel_while_it_waits_is_a_cancel_at_once() -> None:
    state = running(U, retry=TWICE)
    end(10, state)
    actions = at(11, state, CancelRequested(3, (FIRST,)))
    assert not [action for action in actions if isinstance(action, StopAttempt)]
    assert ends(state) == [("cancelled", None)]
    assert (state.finishing, state.pool.leased) == (set(), {})


# -- a GPU that broke -----------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [RetryPolicy(), TWICE])
def test_a_gpu_that_broke_is_to_blame_and_the_job_goes_elsewhere(retry: RetryPolicy) -> None:
    state = running(U, V, retry=retry)
    end(10, state)
    start = only(StartAttempt, seen(12, state, BROKEN))
    assert (start.attempt, start.lease[0].device) == (2, "GPU-v")
    assert ends(state) == [("failed", "its GPU is broken: it must be reset")]
    assert (state.jobs[FIRST].retries_left, state.jobs[FIRST].setbacks) == (retry.retries, 1)


@pytest.mark.parametrize(
    ("how", "outcome"),
    [({"exit_code": 1}, "failed"), ({"signal": 9}, "killed"), ({"lost": "unseen"}, "lost")],
)
def test_of_a_gpu_that_is_known_to_be_broken_no_look_is_needed(
    how: dict[str, object], outcome: str
) -> None:
    state = running(U)
    at(5, state, GpuBroke("GPU-u", NOW_MS + 5, FELL))
    assert LookAtGpus() not in end(10, state, **how)
    assert ends(state) == [(outcome, f"its GPU is broken: {FELL}")]
    assert state.jobs[FIRST].state is JobState.QUEUED


def test_another_gpu_that_broke_is_no_excuse() -> None:
    state = running(U, V)
    at(5, state, GpuBroke("GPU-v", NOW_MS + 5, FELL))
    end(10, state)
    seen(12, state)
    assert ends(state) == [("failed", None)]


def test_a_quarantine_from_before_the_start_is_no_excuse() -> None:
    """The GPU is named 0, and at the start nobody could look at it."""
    state = ready(Device("0", ("0",)))
    at(-10, state, GpuBroke("GPU-u", NOW_MS - 10, FELL))
    started(state, submit(state))
    at(5, state, DevicesChanged((structs.replace(U, key="0"),)))
    end(10, state)
    seen(12, state)
    assert ends(state) == [("failed", None)]


def test_a_gpu_that_has_left_the_pool_is_to_blame_all_the_same() -> None:
    state = running(U, V)
    at(5, state, GpuBroke("GPU-u", NOW_MS + 5, FELL))
    at(6, state, DevicesChanged((V,)))
    end(10, state)
    assert ends(state) == [("failed", f"its GPU is broken: {FELL}")]


def test_after_five_setbacks_it_is_the_fault_of_the_job() -> None:
    state = running(U)
    for no in range(1, 7):
        assert (state.attempts[FIRST].no, state.jobs[FIRST].setbacks) == (no, no - 1)
        at(10 * no, state, GpuBroke("GPU-u", NOW_MS + 10 * no, FELL))
        end(10 * no + 1, state)
        at(10 * no + 2, state, HealRequested(9, ()))
        seen(10 * no + 4, state)
    assert ends(state) == [("failed", f"its GPU is broken: {FELL}")] * 6
    assert state.changes.jobs[FIRST].state is JobState.DONE


# -- what gpud stops itself -----------------------------------------------------------------------


def test_an_idle_job_that_was_stopped_is_done_and_says_why() -> None:
    state = running(U, policy=GpuPolicy(idle_ms=1_000, stop_idle=True))
    for ms in (1_000, 2_000):
        seen(ms, state)
    end(2_100, state, signal=15)
    why = "it did nothing on its GPUs and was stopped (pool.stop_idle)"
    assert ends(state) == [("killed", why)]
    assert state.changes.jobs[FIRST].state is JobState.DONE


@pytest.mark.parametrize(
    ("retries", "setbacks", "goes_on"),
    [(0, 0, "held"), (2, 0, "queued"), (2, 4, "queued"), (2, 5, "held")],
)
def test_a_job_on_a_guest_gpu_is_held_or_waits_again_up_to_five_times(
    retries: int, setbacks: int, goes_on: str
) -> None:
    state = running(GUEST, retry=RetryPolicy(retries))
    state.jobs[FIRST].setbacks = setbacks
    seen(10, state, OWNED)
    end(15, state, signal=15)
    assert ends(state) == [("killed", "the owner of its guest GPU came back")]
    assert (state.jobs[FIRST].state, state.jobs[FIRST].retries_left) == (goes_on, retries)


def test_a_cancel_goes_before_the_owner() -> None:
    state = running(GUEST, retry=TWICE)
    seen(10, state, OWNED)
    at(11, state, CancelRequested(3, (FIRST,)))
    end(15, state, signal=15)
    assert ends(state) == [("cancelled", None)]


# -- out of memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "then", "more"),
    [
        (Request(vram_mib=8_192), Request(vram_mib=12_288), "12 GiB of GPU memory"),
        # 36,001 of 40,000: the driver has some; and not on a smaller GPU
        (Request(vram_mib=24_001), Request(vram_mib=24_001, exclusive=True), ALONE),
        (Request(vram_mib=24_000), Request(vram_mib=36_000), "35.2 GiB of GPU memory"),
        (AUTO_KNOWN, Request(vram_mib=13_800), "13.5 GiB of GPU memory"),
        (Request(share_milli=300), Request(exclusive=True), ALONE),
        (Request(gpu_model="h1"), Request(gpu_model="h1", exclusive=True), ALONE),
        (Request(exclusive=True), Request(exclusive=True), NOTHING),
        (AUTO_NEW, AUTO_NEW, NOTHING),  # a first run goes alone
    ],
)
def test_after_a_lack_of_gpu_memory_the_next_attempt_gets_more(
    asked: Request, then: Request, more: str
) -> None:
    state = running(HALVES, request=asked, retry=ON_OOM)
    end(10, state, exit_code=1, oom="cuda")
    assert only(StartAttempt, seen(12, state)).attempt == 2
    assert told(state)[0]["more"] == more
    assert (state.jobs[FIRST].request, state.jobs[FIRST].grown) == (then, then != asked)
    assert ends(state) == [("failed", "out of GPU memory")]


def test_who_ran_out_of_a_whole_gpu_is_tried_on_a_larger_one() -> None:
    state = running(U, LARGE, request=Request(exclusive=True), retry=ON_OOM)
    assert state.attempts[FIRST].lease[0].device == "GPU-u"
    end(10, state, exit_code=1, oom="cuda")
    free = GpuSight("GPU-v", used_mib=300, free_mib=79_700)
    assert only(StartAttempt, seen(12, state, free)).lease[0].device == "GPU-v"
    assert told(state)[0]["more"] == "58.6 GiB of GPU memory"


def test_a_lack_of_host_memory_is_tried_again_with_the_same_gpu_memory() -> None:
    state = running(HALVES, request=Request(vram_mib=8_192), retry=ON_OOM)
    end(10, state, signal=9, oom="host")
    seen(12, state)
    assert "more" not in told(state)[0]
    assert ends(state) == [("killed", "out of memory")]
    assert state.jobs[FIRST].request == Request(vram_mib=8_192)
