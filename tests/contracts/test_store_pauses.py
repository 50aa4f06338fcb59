"""What the store keeps of pauses and checkpoints."""

from __future__ import annotations

from msgspec import structs

from gpud.core.model import JobState, LeasePart, Outcome, Phase
from gpud.ports import Store
from gpud.protocol.selectors import parse

from .test_store import Desk, command, desk, store

__all__ = ["desk", "store"]  # fixtures


def test_a_pause_is_kept_shown_and_selected(desk: Desk, store: Store) -> None:
    job = desk.add(command("x"))
    other = desk.add(command("y"))
    desk.start(job)
    desk.start(other, LeasePart("1", 1000))
    for running in (job, other):
        desk.state.set_phase(running, Phase.RUNNING)
    attempt = desk.state.attempts[job.id]
    attempt.paused_at_ms, attempt.paused_ms = 7_000, 250
    desk.state.set_phase(job, Phase.PAUSED)
    desk.commit()
    again = store.load().attempts[0]
    assert structs.astuple(again) == structs.astuple(attempt)
    assert store.select(parse(["state:paused"])) == [job.id]
    first, second = store.views([job.id, other.id])
    assert (first.phase, first.paused_at_ms) == ("paused", 7_000)
    assert (second.phase, second.paused_at_ms) == ("running", 0)
    attempt.paused_at_ms, attempt.paused_ms = 0, 900
    desk.state.set_phase(job, Phase.RUNNING)
    desk.commit()
    assert store.load().attempts[0].paused_ms == 900
    assert store.views([job.id])[0].paused_at_ms == 0


def test_a_checkpoint_is_kept_and_what_follows_from_it(desk: Desk, store: Store) -> None:
    job = desk.add(command("x", checkpoint=10))
    desk.commit()
    assert store.spec(job.id).checkpoint == store.load().jobs[0].checkpoint == 10
    assert store.views([job.id])[0].checkpoint == "SIGUSR1"
    desk.start(job)
    attempt = desk.state.attempts[job.id]
    attempt.leaving, attempt.stop_why = True, "asked"
    desk.state.set_phase(job, Phase.STOPPING)
    desk.commit()
    [again] = store.load().attempts
    assert (again.leaving, again.stop_why) == (True, "asked")
    job.resume = True
    desk.end(job, Outcome.KILLED, again_at=0)
    desk.commit()
    [queued] = store.load().jobs
    assert (queued.state, queued.resume, queued.checkpoint) == (JobState.QUEUED, True, 10)
    desk.state.finish(job, Outcome.CANCELLED, "", 5)
    desk.commit()
    [done] = store.recall([job.id])
    assert (done.resume, done.checkpoint) == (True, 10)


def test_a_job_without_a_signal_says_nothing_of_one(desk: Desk, store: Store) -> None:
    job = desk.add(command("x"))
    desk.commit()
    assert store.views([job.id])[0].checkpoint == ""
