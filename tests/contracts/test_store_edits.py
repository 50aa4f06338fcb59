"""What the store keeps of jobs that were edited and moved."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec import structs

from gpud.core.actions import Answer
from gpud.core.events import Edit, EditRequested, MoveRequested, SwapRequested
from gpud.core.model import After, Job, JobId, JobSpec, Outcome, Request, RetryPolicy, Span
from gpud.core.scheduler import handle
from gpud.ports import Store
from gpud.store.schema import MIGRATIONS
from gpud.store.sqlite import DATABASE, SqliteStore

from .test_store import Desk, command, desk, digests, store

__all__ = ["desk", "store"]  # fixtures

BEFORE_EDITS = 3  # migrations


def edit(desk: Desk, job: Job, was: JobSpec, **fields: object) -> JobSpec:
    becomes = structs.replace(was, **fields)
    (said,) = handle(desk.state, EditRequested(1, (Edit(job.id, was, becomes),)), desk.now)
    assert isinstance(said, Answer)
    assert said.jobs == (job.id,), said
    return becomes


def move(desk: Desk, *jobs: Job, to: str, beside: Job | None = None) -> None:
    ids = tuple(job.id for job in jobs)
    other = beside.id if beside is not None else JobId(0)
    handle(desk.state, MoveRequested(1, ids, to, other), desk.now)


def test_an_edited_spec_is_what_the_job_says(desk: Desk, store: Store) -> None:
    was = command("python a.py", name="a", env=b"A=1", cwd=b"/a", umask=0o22)
    first, second, third = (desk.add(was) for _ in range(3))
    desk.commit()
    assert store.spec(first.id) == store.spec(second.id) == was, "the third is read ahead"
    becomes = edit(
        desk,
        third,
        was,
        command=b"b",
        argv=(b"b", b"\xff"),
        name="b",
        env=b"A=2",
        cwd=b"/b",
        setup=b"module load cuda",
        request=Request(2),
        priority=7,
        retry=RetryPolicy(3),
        time_limit_s=5.0,
        begin_ms=9_000,
    )
    desk.commit()
    assert store.spec(third.id) == becomes
    assert store.spec(second.id) == was
    assert {job.id: job for job in store.load().jobs} == desk.state.jobs
    detail = store.details([third.id])[0]
    assert (detail.job.name, detail.job.priority, detail.cwd) == ("b", 7, "/b")
    assert (detail.retries, detail.job.retries_left, detail.time_limit_s) == (3, 3, 5.0)
    assert [event.kind for event in detail.story] == ["edited"]


def test_an_entry_stays_known_by_what_stood_in_its_source(desk: Desk, store: Store) -> None:
    was = [command(text, source="q", entry_key=f"1:{text}") for text in "ab"]
    one, other = (desk.add(spec) for spec in was)
    apart = desk.add(command("c"))
    desk.commit()
    twice = edit(desk, one, was[0], command=b"x")
    edit(desk, other, was[1], name="only its name")
    edit(desk, apart, command("c"), command=b"z")
    desk.commit()
    edit(desk, one, twice, command=b"y")
    desk.commit()
    assert store.taken("q", 1) == digests(a=1, b=1)
    assert store.spec(one.id).command == b"y"


def test_what_was_moved_comes_back_in_its_place(desk: Desk, store: Store) -> None:
    jobs = [desk.add(command("x", priority=priority)) for priority in (0, 0, 0, 5, 0)]
    held = [desk.add(command("held", held=True)) for _ in range(2)]
    desk.commit()
    move(desk, jobs[4], to="before", beside=jobs[1])
    move(desk, jobs[0], to="last")
    desk.commit()
    handle(desk.state, SwapRequested(1, (held[0].id, held[1].id)), desk.now)
    desk.commit()
    wanted = [jobs[n].id for n in (3, 4, 1, 2, 0)] + [held[1].id, held[0].id]
    loaded = store.load().jobs
    assert [job.id for job in loaded] == wanted
    assert {job.id: job for job in loaded} == desk.state.jobs
    assert [view.id for view in store.page(0, 0)[0]] == wanted
    assert [view.id for view in store.page(0, 3)[0]] == wanted[:3]


def test_what_was_moved_keeps_its_place_when_it_is_done(desk: Desk, store: Store) -> None:
    jobs = [desk.add(command("x")) for _ in range(3)]
    move(desk, jobs[2], to="first")
    desk.commit()  # in the commit that makes it
    desk.start(jobs[2])
    desk.end(jobs[2], Outcome.FAILED)
    desk.commit()
    assert store.recall([jobs[2].id])[0].place == -1


def test_an_edit_of_what_it_comes_after(desk: Desk, store: Store) -> None:
    jobs = [desk.add(command("x", after=After((Span(1, 1),) * n))) for n in (0, 1, 0)]
    desk.commit()
    asked = After((Span(3, 3), Span(1, 1, ended=True)), patient=True)
    edit(desk, jobs[1], command("x", after=jobs[1].after), after=asked)
    desk.commit()
    assert after_of(store) == {1: After(), 2: asked, 3: After()}
    edit(desk, jobs[1], command("x", after=asked), after=After())
    desk.commit()
    assert after_of(store) == {1: After(), 2: After(), 3: After()}


def after_of(store: Store) -> dict[int, After]:
    return {job.id: job.after for job in store.load().jobs}


def test_a_database_of_before_edits_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        desk = Desk(store)
        desk.add(command("a", source="q", entry_key="1:0"))
        desk.add(command("b", priority=3, after=After((Span(1, 1),), patient=True)))
        desk.commit()
        jobs = store.load().jobs
    go_back(tmp_path / DATABASE)
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        loaded = store.load()
        assert loaded.jobs == jobs
        assert store.taken("q", 0) == digests(a=1)
        desk = Desk(store)
        desk.state.next_id = loaded.next_id
        desk.state.load(loaded.jobs, [])
        move(desk, desk.state.jobs[JobId(1)], to="first")
        desk.commit()
        assert [job.id for job in store.load().jobs] == [1, 2]


def go_back(database: Path) -> None:
    """The tables as they were before there were edits."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        rows = {
            table: db.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("meta", "environments", "templates", "dependencies")
        }
        columns = without(db, "jobs", "place", "entry_command", "array")
        jobs = db.execute(f"SELECT {columns} FROM jobs").fetchall()
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f"DROP TABLE {name}")
        for script in MIGRATIONS[:BEFORE_EDITS]:
            db.executescript(script)
        db.execute("DELETE FROM meta")
        for table, found in {**rows, f"jobs ({columns})": jobs}.items():
            for row in found:
                marks = ",".join("?" * len(row))
                db.execute(f"INSERT INTO {table} VALUES ({marks})", row)
        db.execute(f"PRAGMA user_version = {BEFORE_EDITS}")


def without(db: sqlite3.Connection, table: str, *left_out: str) -> str:
    columns: Sequence[tuple[str]] = db.execute(
        "SELECT name FROM pragma_table_info(?)", (table,)
    ).fetchall()
    return ", ".join(name for (name,) in columns if name not in left_out)
