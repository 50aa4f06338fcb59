"""What the store keeps of jobs that come after others."""

from __future__ import annotations

from gpud.core.model import After, JobId, Outcome, Span
from gpud.ports import Store

from .test_store import Desk, command, desk, store

__all__ = ["desk", "store"]  # fixtures


def test_what_a_job_comes_after_is_kept_with_ids(desk: Desk, store: Store) -> None:
    first, second = desk.add(command("a")), desk.add(command("b"))
    asked = After((Span(-1, -1), Span(1, 2, ended=True)), patient=True)
    third = desk.add(command("c", after=asked))
    desk.commit()
    after = After((Span(2, 2), Span(1, 2, ended=True)), patient=True)
    assert third.after == after
    loaded = {job.id: job.after for job in store.load().jobs}
    assert loaded == {first.id: After(), second.id: After(), third.id: after}
    detail = store.details([third.id])[0]
    assert (detail.after, detail.after_any, detail.after_failed) == (("2",), ("1-2",), "wait")
    assert store.details([first.id])[0].after_failed == "cancel"


def test_outcomes_of_done_jobs_that_open_ones_come_after(desk: Desk, store: Store) -> None:
    done, live, apart = (desk.add(command(text)) for text in "abc")
    desk.add(command("d", after=After((Span(1, 2),), patient=True)))
    for job in (done, apart):
        desk.start(job)
        desk.end(job, Outcome.FAILED)
    desk.commit()
    assert store.load().outcomes == {done.id: Outcome.FAILED}
    asked = [done.id, live.id, apart.id, JobId(99)]
    assert store.outcomes(asked) == {done.id: Outcome.FAILED, apart.id: Outcome.FAILED}
    assert store.outcomes([]) == {}


def test_a_job_that_is_recalled_knows_what_it_came_after(desk: Desk, store: Store) -> None:
    first, second = desk.add(command("a")), desk.add(command("b", after=After((Span(1, 1),))))
    desk.start(first)
    desk.end(first, Outcome.FAILED)
    desk.state.finish(second, Outcome.CANCELLED, "job 1, which it comes after, failed", 5)
    desk.commit()
    [again] = store.recall([second.id])
    assert again.after == After((Span(1, 1),))
    assert store.load().outcomes == {}, "nobody waits for it any more"
