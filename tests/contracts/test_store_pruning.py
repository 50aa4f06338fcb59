"""Forgetting: what goes with a job, and what stays known of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gpud.core.changes import Changes, NewSubmission
from gpud.core.model import (
    After,
    Array,
    JobId,
    Outcome,
    Span,
)
from gpud.errors import GpudError
from gpud.ports import LogFile, Store
from gpud.protocol.selectors import parse
from gpud.store.sqlite import DATABASE, SqliteStore

from .test_store import Desk, command, desk, digests, store

__all__ = ["desk", "store"]


def run(
    desk: Desk, text: str = "true", outcome: Outcome = Outcome.SUCCEEDED, **more: object
) -> JobId:
    job = desk.add(command(text, **more))
    desk.start(job)
    desk.state.tell(job.id, 1, "started", desk.now)
    desk.commit()
    desk.end(job, outcome)
    desk.commit()
    return job.id


def end_element(desk: Desk, number: int, outcome: Outcome) -> None:
    element = desk.state.own(JobId(number))
    desk.start(element)
    desk.commit()
    desk.end(element, outcome)
    desk.commit()


def sweep(store: Store) -> None:
    walk = store.sweep(None)
    while walk is not None:
        walk = store.sweep(walk)


def rows(store: Store, table: str, where: str = "1") -> list[tuple[object, ...]]:
    assert isinstance(store, SqliteStore)
    found: list[tuple[object, ...]] = store._db.execute(
        f"SELECT * FROM {table} WHERE {where}"
    ).fetchall()
    return found


def test_a_job_goes_with_all_that_is_its_own(desk: Desk, store: Store) -> None:
    first = run(desk, "a", env=b"A=1", name="old", group="lr", labels=("k=v",))
    second = run(desk, "b", Outcome.FAILED, env=b"B=2")
    waits = desk.add(command("c", env=b"A=1"))
    desk.commit()
    assert [one.job for one in store.ended((0, 0), 9)] == [first, second]
    assert store.group_counts() == {"lr": {"succeeded": 1}}
    assert store.prune([first, waits.id, JobId(99)], 77) == (first,)
    sweep(store)
    assert store.select(parse(["all"])) == [second, waits.id]
    assert store.counts()[1]["succeeded"] == 0
    assert store.counts()[0]["done"] == 1
    assert store.group_counts() == {}
    for table in ("attempts", "events", "dependencies"):
        assert not rows(store, table, f"job = {first}")
    assert len(rows(store, "environments")) == 2, "A=1 is that of a job that waits"
    assert len(rows(store, "templates")) == 2
    assert not rows(store, "tags", "tag = 'group:lr'")
    with pytest.raises(GpudError, match="cannot select job 1: it is no longer kept") as caught:
        store.select(parse(["1"]))
    assert caught.value.kind == "not-found"
    with pytest.raises(GpudError, match="cannot select job 44: no such job"):
        store.select(parse(["44"]))
    assert store.prune([second], 78) == (second,)
    sweep(store)
    assert len(rows(store, "environments")) == 1


def test_what_is_interned_again_after_it_went(desk: Desk, store: Store) -> None:
    first = run(desk, env=b"A=1", group="lr")
    store.group_counts()
    store.prune([first], 1)
    sweep(store)
    assert not rows(store, "templates")
    again = run(desk, env=b"A=1", group="lr")
    assert store.spec(again).env == b"A=1"
    assert store.group_counts() == {"lr": {"succeeded": 1}}
    assert rows(store, "environments")[0][2] == b"A=1"
    assert isinstance(store, SqliteStore)
    assert store._db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_ids_and_sequence_numbers_are_never_used_again(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        desk = Desk(store)
        jobs = [run(desk) for _ in range(3)]
        last = store.last_seq()
        assert set(store.prune(jobs, 1)) == set(jobs)
        sweep(store)
        assert store.last_seq() == last
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        assert store.load().next_id == 4
        desk = Desk(store)
        desk.state.next_id = store.load().next_id
        assert run(desk) == 4
        assert store.events_after(0, 9)[0].seq > 0
        assert store.last_seq() > 0


def test_the_newest_event_stays(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        desk = Desk(store)
        job = run(desk)
        desk.state.tell(JobId(0), 0, "drained", desk.now)
        desk.commit()
        last = store.last_seq()
        store.prune([job], 1)
        sweep(store)
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        assert store.last_seq() == last


def test_an_entry_stays_known_to_its_source(desk: Desk, store: Store) -> None:
    kept = run(desk, "kept", source="q", entry_key="1:0")
    gone = [run(desk, text, source="q", entry_key=f"1:{n}") for n, text in ((5, "x"), (9, "x"))]
    before = store.taken("q", 0)
    assert before == digests(kept=1, x=2)
    store.prune(gone, 1)
    sweep(store)
    assert store.taken("q", 0) == before
    assert store.taken("q", 2) == {}
    assert store.source_counts()["q"] == (3, 0)
    store.prune([kept], 1)
    assert store.taken("q", 0) == before


def test_the_key_of_a_submit_lives_as_long_as_one_of_its_jobs(desk: Desk, store: Store) -> None:
    jobs = [run(desk) for _ in range(3)]
    for key, first, count in (("one", 1, 1), ("two", 2, 2)):
        store.commit(Changes(submissions={key: NewSubmission(key, "d", JobId(first), count)}))
    store.prune(jobs[:2], 1)
    sweep(store)
    assert store.submission("one") is None
    assert store.submission("two") is not None
    store.prune(jobs[2:], 1)
    sweep(store)
    assert store.submission("two") is None


def test_the_log_is_due_until_it_was_removed(desk: Desk, store: Store) -> None:
    job, other = run(desk), run(desk)
    store.prune_logs([job], 77)
    assert store.logs_due(9) == [LogFile(job, 1)]
    assert store.details([job])[0].attempts[0].log_gone_at_ms == 77
    store.prune([other], 78)
    assert sorted(store.logs_due(9)) == [LogFile(job, 1), LogFile(other, 1)]
    store.logs_removed(store.logs_due(9))
    assert store.logs_due(9) == []
    assert store.details([job])[0].attempts[0].log_gone_at_ms == 77, "and says so"
    assert rows(store, "logs", f"job = {other}") == []
    store.prune([job], 79)
    assert store.logs_due(9) == [LogFile(job, 1)], "harmless: there is no such file"
    store.logs_removed(store.logs_due(9))
    assert rows(store, "logs") == []


def test_the_log_of_a_job_that_runs_stays(desk: Desk, store: Store) -> None:
    job = desk.add(command("x"))
    desk.start(job)
    desk.commit()
    store.prune_logs([job.id], 1)
    assert store.logs_due(9) == []
    assert store.prune([job.id], 1) == ()
    assert store.ended_of([job.id]) == []


def test_a_cut(desk: Desk, store: Store) -> None:
    job = run(desk)
    store.cut(LogFile(job, 1), 4096, 8192)
    store.cut(LogFile(job, 1), 4096, 16384)
    assert store.details([job])[0].attempts[0].log_cut == (4096, 16384)
    store.prune([job], 1)
    assert store.logs_due(9) == [LogFile(job, 1)]


def test_an_array_goes_element_by_element_and_its_first_one_last(desk: Desk, store: Store) -> None:
    array = desk.add(command("x", array=Array(((0, 3, 1),)), source="q", entry_key="1:0"))
    after = desk.add(command("after"))
    desk.commit()
    assert array.id == -1
    for number in (1, 2, 3):
        end_element(desk, number, Outcome.SUCCEEDED)
    assert store.prune([JobId(1), JobId(2), JobId(3)], 1) == (), "the fourth has no row"
    end_element(desk, 4, Outcome.FAILED)
    assert set(store.prune([JobId(1), JobId(2), JobId(3)], 1)) == {2, 3}
    assert store.select(parse(["1"])) == [1, 4]
    assert store.select(parse(["1[0-3]"])) == [1, 4]
    with pytest.raises(GpudError, match=r"job 1\[1\]: it is no longer kept"):
        store.select(parse(["1[1]"]))
    assert store.array_views([JobId(1)])[0].counts == {"succeeded": 1, "failed": 1}
    assert store.taken("q", 0) == digests(x=1)
    assert set(store.prune([JobId(1), JobId(4)], 1)) == {1, 4}
    sweep(store)
    assert store.array_at(JobId(1)) is None
    assert store.load().arrays == ()
    assert store.taken("q", 0) == digests(x=1)
    assert store.select(parse(["all"])) == [after.id]


def test_what_is_gone_keeps_nobody_waiting_who_is_tried_again(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        desk = Desk(store)
        one, two = run(desk, outcome=Outcome.FAILED), run(desk)
        late = desk.add(command("x", after=After((Span(one, two, True),))))
        desk.commit()
        desk.state.finish(late, Outcome.CANCELLED, "", desk.now)
        desk.commit()
        store.prune([one], 1)
        [recalled] = store.recall([late.id])
        assert recalled.after == After((Span(two, two, True),))
        assert isinstance(store, SqliteStore)
        store.prune([two], 1)
        [recalled] = store.recall([late.id])
        assert recalled.after == After()
        store._db.execute(
            "UPDATE jobs SET state = 'queued', outcome = NULL WHERE id = ?", (late.id,)
        )
        assert [job.after for job in store.load().jobs] == [After()]


def test_a_database_of_before_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        job = run(Desk(store), "a", source="q", entry_key="1:0")
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as db:
        for table in ("past_entries", "logs", "audit"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DROP INDEX tags_template")
        db.execute("PRAGMA user_version = 6")
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        assert store.prune([job], 1) == (job,)
        assert store.taken("q", 0) == digests(a=1)
