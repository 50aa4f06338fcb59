"""What is counted from the events of real jobs on the real core, and read from its state."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

from gpud.core.events import (
    AttemptEnded,
    AttemptNotStarted,
    CancelRequested,
    DevicesChanged,
    DrainRequested,
    GpuBroke,
    GpusSeen,
    HoldRequested,
    RetryRequested,
    Tick,
)
from gpud.core.model import (
    CPU_LANE,
    After,
    Array,
    Device,
    JobId,
    JobSpec,
    JobState,
    Outcome,
    Request,
    RetryPolicy,
    Span,
)
from gpud.core.sight import GpuProcess, GpuSight
from gpud.metrics.counting import Counts
from gpud.protocol.replies import SourceView

from .conftest import Metered

ANY = JobSpec(b"true")


def test_jobs_by_state_and_by_outcome(daemon: Metered) -> None:
    daemon.submit(*[ANY] * 5, JobSpec(b"true", held=True))
    daemon.start(1)
    daemon.start(2)
    daemon.end(1)
    daemon.end(2, exit_code=3)
    daemon.post(CancelRequested(1, (JobId(5),)))
    seen = daemon.seen()
    jobs, done, ended = seen["gpud_jobs"], seen["gpud_jobs_done"], seen["gpud_jobs_ended"]
    assert [jobs.value(state=state) for state in ("queued", "active", "held")] == [0, 2, 1]
    for found, suffix in ((done, ""), (ended, "_total")):
        counts = {outcome.value: found.value(suffix, outcome=outcome) for outcome in Outcome}
        assert {outcome: n for outcome, n in counts.items() if n} == {
            "succeeded": 1, "failed": 1, "cancelled": 1,
        }  # fmt: skip
    assert seen["gpud_jobs_submitted"].value("_total") == 6
    assert seen["gpud_attempts_started"].value("_total") == 2
    assert seen["gpud_attempts_ended"].value("_total", outcome="cancelled") == 0
    assert seen["gpud_attempts"].value(phase="starting") == 2


def test_a_person_who_retries_takes_nothing_from_what_was_counted(daemon: Metered) -> None:
    daemon.submit(ANY)
    daemon.start(1)
    daemon.end(1, exit_code=3)
    [record] = daemon.store.recall([JobId(1)])
    daemon.post(RetryRequested(1, (JobId(1),), (record,)))
    seen = daemon.seen()
    assert seen["gpud_jobs_ended"].value("_total", outcome="failed") == 1
    assert seen["gpud_jobs_done"].value(outcome="failed") == 0


def test_attempts_that_are_tried_again_end_no_job(daemon: Metered) -> None:
    daemon.submit(JobSpec(b"false", retry=RetryPolicy(retries=1)))
    daemon.start(1)
    daemon.end(1, exit_code=1)
    seen = daemon.seen()
    assert seen["gpud_attempts_ended"].value("_total", outcome="failed") == 1
    assert seen["gpud_attempts_retried"].value("_total") == 1
    assert seen["gpud_jobs_ended"].value("_total", outcome="failed") == 0


def test_a_job_that_leaves_a_guest_and_is_held_has_not_ended() -> None:
    daemon = Metered()
    daemon.post(DevicesChanged((Device("GPU-0", ("0",), uuids=("GPU-0",), guest=True),)))
    look(daemon, "GPU-0")
    daemon.submit(ANY)
    look(daemon, "GPU-0")
    daemon.start(1)
    look(daemon, "GPU-0", processes=(GpuProcess(9, "python", "owner", 500),))
    assert daemon.state.attempts[JobId(1)].stop_why == "guest"
    daemon.post(AttemptEnded(JobId(1), 1, daemon.now_ms(), signal=15, stopped=True))
    look(daemon, "GPU-0")
    assert daemon.state.jobs[JobId(1)].state is JobState.HELD
    seen = daemon.seen()
    assert seen["gpud_jobs_ended"].value("_total", outcome="killed") == 0
    assert seen["gpud_attempts_ended"].value("_total", outcome="killed") == 1


def test_a_shortage_shows_until_a_start_succeeds(daemon: Metered) -> None:
    daemon.submit(ANY)
    daemon.post(AttemptNotStarted(JobId(1), 1, daemon.now_ms(), "resources", "no memory"))
    seen = daemon.seen()
    assert seen["gpud_start_shortage"].value() == 1
    assert seen["gpud_attempts_retried"].value("_total") == 1
    assert seen["gpud_attempts_started"].value("_total") == 0


def test_elements_that_end_together_are_counted_one_by_one(daemon: Metered) -> None:
    daemon.submit(JobSpec(b"true", array=Array(((0, 99, 1),))))
    daemon.post(CancelRequested(1, tuple(JobId(job) for job in range(3, 101))))
    seen = daemon.seen()
    assert seen["gpud_jobs_submitted"].value("_total") == 100
    assert seen["gpud_jobs_ended"].value("_total", outcome="cancelled") == 98


def test_how_long_it_took(daemon: Metered) -> None:
    daemon.submit(ANY)
    attempt = daemon.state.attempts[JobId(1)]
    submitted_ms = daemon.state.jobs[JobId(1)].submitted_at_ms
    daemon.start(1)
    started_ms = attempt.started_at_ms
    daemon.post(AttemptEnded(JobId(1), 1, started_ms + 90_000, exit_code=0))
    seen = daemon.seen()
    wait, run = seen["gpud_job_wait_seconds"], seen["gpud_attempt_run_seconds"]
    assert wait.value("_sum") == (started_ms - submitted_ms) / 1000
    assert run.value("_sum") == 90
    assert [run.value("_bucket", le=le) for le in ("60.0", "300.0")] == [0, 1]
    start = seen["gpud_attempt_start_seconds"]
    assert start.value("_sum") == (started_ms - attempt.dispatched_at_ms) / 1000
    assert [found.value("_count") for found in (wait, run, start)] == [1, 1, 1]


def test_only_first_attempts_say_how_long_a_job_waited(daemon: Metered) -> None:
    daemon.submit(JobSpec(b"x", retry=RetryPolicy(retries=1, backoff_s=0.0)))
    for no in (1, 2):
        assert daemon.no(1) == no
        daemon.start(1)
        daemon.end(1, exit_code=1)
    seen = daemon.seen()
    assert seen["gpud_job_wait_seconds"].value("_count") == 1
    assert seen["gpud_attempt_start_seconds"].value("_count") == 2


def test_after_a_restart_what_runs_is_known_by_its_start(daemon: Metered) -> None:
    daemon.submit(ANY, ANY)
    daemon.start(1)
    daemon.listeners.clear()
    daemon.counts = Counts(lambda: daemon.state)
    daemon.listeners.append(daemon.counts.heard)
    daemon.start(2)
    daemon.end(1)
    seen = daemon.seen()
    assert seen["gpud_attempt_run_seconds"].value("_count") == 1
    assert seen["gpud_job_wait_seconds"].value("_count") == 1
    assert seen["gpud_attempts_started"].value("_total") == 1


def test_what_is_remembered_goes_with_the_attempt(daemon: Metered) -> None:
    daemon.submit(*[ANY] * 20)
    for job in range(1, 21):
        if job % 3:
            daemon.start(job)
            daemon.end(job)
        else:
            daemon.post(AttemptNotStarted(JobId(job), 1, daemon.now_ms(), "directory", "none"))
    assert not daemon.counts._starting
    assert not daemon.counts._running


def test_the_oldest_that_only_needs_room(daemon: Metered) -> None:
    daemon.submit(*[ANY] * 3, JobSpec(b"true", request=Request(gpus=0)))
    oldest = daemon.seen()["gpud_queue_oldest_seconds"]
    assert oldest.value(kind="gpu") > 0
    assert oldest.value(kind="cpu") == 0
    daemon.post(HoldRequested(1, (JobId(3),)))
    later = daemon.now_ms() + 1_000_000_000
    daemon.submit(JobSpec(b"true", begin_ms=later), JobSpec(b"x", after=After((Span(3, 3),))))
    assert daemon.seen()["gpud_queue_oldest_seconds"].value(kind="gpu") == 0


def test_a_job_is_old_from_the_moment_on_at_which_it_was_to_begin(daemon: Metered) -> None:
    daemon.submit(ANY, ANY)
    begin_ms = daemon.now_ms() + 1_000_000
    daemon.submit(JobSpec(b"true", begin_ms=begin_ms))
    daemon._now_ms = itertools.count(begin_ms + 5_000)
    daemon.post(Tick())
    assert 5 <= daemon.seen()["gpud_queue_oldest_seconds"].value(kind="gpu") < 6


def test_slots_and_their_shares() -> None:
    daemon = Metered()
    pool = (Device("0", ("0",)), Device("1", ("1",), 4), Device(CPU_LANE, (), 8))
    daemon.post(DevicesChanged(pool))
    half = JobSpec(b"true", request=Request(gpus=1, share_milli=500))
    daemon.submit(ANY, half, JobSpec(b"true", request=Request(gpus=0)))
    seen = daemon.seen()
    slots, used, free = (seen[f"gpud_slots{end}"] for end in ("", "_used", "_free"))
    assert [found.value(kind="cpu") for found in (slots, used, free)] == [8, 1, 7]
    assert slots.value(kind="gpu") == 5
    assert used.value(kind="gpu") + free.value(kind="gpu") == 5
    leased = [seen["gpud_device_leased_ratio"].value(device=name) for name in "01"]
    assert used.value(kind="gpu") == leased[0] + 4 * leased[1]
    assert sum(leased) > 0.5


def watched() -> Metered:
    daemon = Metered()
    gpus = [Device(f"GPU-{n}", (str(n),), uuids=(f"GPU-{n}",), model='"A"\\100') for n in (0, 1)]
    daemon.post(DevicesChanged((*gpus, Device(CPU_LANE, (), 4))))
    return daemon


def look(daemon: Metered, uuid: str, **more: Any) -> None:
    daemon.post(GpusSeen(daemon.now_ms(), (GpuSight(uuid, **more),)))


def look_at_both(daemon: Metered) -> None:
    full = GpuSight(
        "GPU-0", total_mib=40960, used_mib=1024, free_mib=39936, util=57, temperature_c=61,
        power_mw=250_500, energy_mj=7_000,
    )  # fmt: skip
    daemon.post(GpusSeen(daemon.now_ms(), (full, GpuSight("GPU-1"))))


def test_what_a_look_has_seen() -> None:
    daemon = watched()
    assert "gpud_gpu_memory_bytes{" not in daemon.text()
    look_at_both(daemon)
    seen = daemon.seen()
    at = {"device": "0", "uuid": "GPU-0"}
    assert seen["gpud_gpu_memory" + "_bytes"].value(**at) == 40 * 2**30
    assert seen["gpud_gpu_memory_used_bytes"].value(**at) == 2**30
    assert seen["gpud_gpu_utilization_ratio"].value(**at) == 0.57
    assert seen["gpud_gpu_temperature_celsius"].value(**at) == 61
    assert seen["gpud_gpu_power_watts"].value(**at) == 250.5
    assert seen["gpud_gpu_energy_joules"].value("_total", **at) == 7
    assert seen["gpud_gpu_info"].value(model='"A"\\100', **at) == 1
    assert seen["gpud_gpu_seen_timestamp_seconds"].value(**at) > 0
    assert len(seen["gpud_gpu_power_watts"].samples) == 1  # of the other the driver does not say
    assert seen["gpud_slots_free"].value(kind="gpu") == 2


def test_of_a_gpu_that_could_not_be_looked_at_there_are_no_figures() -> None:
    daemon = watched()
    look(daemon, "GPU-0", problem="the driver does not answer", total_mib=1, util=3)
    seen = daemon.seen()
    assert not seen["gpud_gpu_memory_bytes"].samples
    assert not seen["gpud_gpu_utilization_ratio"].samples
    assert seen["gpud_device_takes_work"].value(device="0") == 0


def test_a_gpu_that_is_quarantined_takes_no_work() -> None:
    daemon = watched()
    look_at_both(daemon)
    daemon.post(GpuBroke("GPU-1", daemon.now_ms(), "Xid 79"))
    seen = daemon.seen()
    for name, wanted in (("quarantined", [0, 1]), ("takes_work", [1, 0])):
        found = seen[f"gpud_device_{name}"]
        assert [found.value(device=device) for device in "01"] == wanted
    assert seen["gpud_slots_free"].value(kind="gpu") == 1


def test_while_the_driver_is_silent_no_gpu_slot_is_free() -> None:
    daemon = watched()
    look_at_both(daemon)
    devices = tuple(daemon.state.pool.devices.values())
    daemon.post(DevicesChanged(devices, unknown="the driver does not answer"))
    seen = daemon.seen()
    assert seen["gpud_slots_free"].value(kind="gpu") == 0
    assert seen["gpud_slots_free"].value(kind="cpu") == 4
    assert seen["gpud_device_takes_work"].value(device="0") == 0


def test_two_devices_of_one_name_are_told_apart() -> None:
    daemon = Metered()
    daemon.post(DevicesChanged((Device("GPU-a", ("0",)), Device("GPU-b", ("0",)))))
    assert daemon.seen()["gpud_device_takes_work"].value(device="GPU-b") == 1


def test_sources(daemon: Metered) -> None:
    good = SourceView("night", "queue-file", "/secret/path", False, "", "", 1_500, 40, 12)
    bad = SourceView("day", "queue-file", "/x", True, "cannot read it", "", 0, 0, 0)
    daemon.views = [good, bad]
    seen = daemon.seen()
    assert seen["gpud_source_up"].value(source="night") == 1
    assert seen["gpud_source_up"].value(source="day") == 0
    assert seen["gpud_source_stopped"].value(source="day") == 1
    assert seen["gpud_source_taken"].value("_total", source="night") == 40
    assert seen["gpud_source_waiting"].value(source="night") == 12
    assert seen["gpud_source_info"].value(source="night", kind="queue-file") == 1
    assert seen["gpud_source_read_timestamp_seconds"].value(source="night") == 1.5
    assert len(seen["gpud_source_read_timestamp_seconds"].samples) == 1


def test_troubles(daemon: Metered) -> None:
    daemon.post(DrainRequested(1))
    assert daemon.seen()["gpud_draining"].value() == 1
    daemon.storage_problem = daemon.state.runner_problem = daemon.broken = "the disk is full"
    seen = daemon.seen()
    assert seen["gpud_storage_problem"].value() == 1
    assert seen["gpud_runner_problem"].value() == 0  # nobody knows: it is not asked
    assert seen["gpud_problems"].value() == 1


def test_nothing_of_a_job_is_in_it(daemon: Metered) -> None:
    secret = {"name": "SECRET", "group": "SECRET", "labels": ("a=SECRET",), "where": "SECRET"}
    daemon.submit(JobSpec(b"SECRET", env=b"K=SECRET", cwd=b"/SECRET", uid=4242, **secret))
    daemon.start(1)
    assert "SECRET" not in daemon.text()
    assert "4242" not in daemon.text()


def test_what_a_scrape_costs_does_not_grow_with_the_queue() -> None:
    short, long = Metered(), Metered()
    short.submit(*[ANY] * 40)
    long.submit(*[ANY] * 4_000)
    short.text(), long.text()  # what a dispatch left behind is put in order once
    assert calls(long.text) < calls(short.text) + 40


def test_what_an_event_costs_is_a_few_calls(daemon: Metered) -> None:
    daemon.submit(ANY)
    events = []
    daemon.listeners = [events.extend]
    daemon.start(1)
    daemon.end(1)
    assert {event.kind for event in events} == {"started", "ended"}
    assert calls(lambda: daemon.counts.heard(events)) < 40


def calls(what: Callable[[], object]) -> int:
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        what()
    finally:
        sys.setprofile(None)
    return count
