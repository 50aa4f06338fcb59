"""The contract of ports.Store, over the store on disk and the one in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.changes import Changes, NewSubmission
from gpud.core.entries import entry_digest
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import (
    Array,
    Cursor,
    Device,
    Job,
    JobId,
    JobSpec,
    JobState,
    LeasePart,
    NewJob,
    Outcome,
    Phase,
    Request,
    RetryPolicy,
    Rusage,
    Story,
)
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.errors import GpudError
from gpud.ports import Likeness, StorageError, Store
from gpud.protocol.replies import MOST_OF_COMMAND
from gpud.protocol.selectors import Selection, parse
from gpud.protocol.text import Raw, to_bytes
from gpud.store.sqlite import SqliteStore

BOOT = "2f9e1e2a-6f0b-4b57-8d57-0d5f0a3c4b11"


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "disk":
        opened = SqliteStore.open(tmp_path, durable=False)
    else:
        opened = SqliteStore.in_memory(tmp_path)
    yield opened
    opened.close()


class Desk:
    """A core state beside a store: moves jobs by the core's own mutations, then commits."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.state = State(Pool([Device("0", ("0",)), Device("1", ("1",)), Device("cpu", (), 4)]))
        self.state.boot_id = BOOT
        self.now = 1_000

    def commit(self) -> None:
        self.store.commit(self.state.take_changes())

    def add(self, spec: JobSpec, problem: str = "") -> Job:
        self.now += 1
        return self.state.add(NewJob(spec, problem), self.now)

    def start(self, job: Job, *lease: LeasePart) -> None:
        self.now += 1
        self.state.activate(job, lease or (LeasePart("0", 1000),), self.now)

    def end(
        self, job: Job, outcome: Outcome, why: str = "", *, again_at: int | None = None
    ) -> None:
        self.now += 1
        attempt = self.state.attempts.get(job.id)
        if attempt is not None:
            attempt.outcome, attempt.why, attempt.ended_at_ms = outcome, why, self.now
            attempt.exit_code = 0 if outcome is Outcome.SUCCEEDED else 1
            attempt.rusage = Rusage(user_s=1.5, max_rss_kib=2048)
        if again_at is None:
            self.state.finish(job, outcome, why, self.now)
        else:
            self.state.requeue(job, again_at)


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def command(text: str, **more: object) -> JobSpec:
    return JobSpec(text.encode(), **more)  # type: ignore[arg-type]


def digests(**counts: int) -> dict[bytes, int]:
    return {entry_digest(text.encode()): count for text, count in counts.items()}


# -- nothing yet -----------------------------------------------------------------------------


def test_a_new_store_is_empty(store: Store) -> None:
    loaded = store.load()
    assert (loaded.jobs, loaded.attempts, loaded.next_id) == ([], [], 1)
    assert (loaded.draining, loaded.stopped_sources) == (False, frozenset())
    assert store.page(5, 5) == ([], 0)
    assert store.select(Selection(everything=True)) == []
    assert store.events_after(0, 10) == []
    assert store.last_seq() == 0
    assert store.position("q") is None
    assert store.submission("k") is None
    assert store.source_counts() == {}
    states, outcomes = store.counts()
    assert states == {"queued": 0, "held": 0, "active": 0, "done": 0}
    assert outcomes == dict.fromkeys([o.value for o in Outcome], 0)


def test_nothing_to_commit_is_no_event(store: Store) -> None:
    assert store.commit(Changes()) == []


# -- specs -----------------------------------------------------------------------------------

words = st.tuples() | st.lists(st.binary(max_size=8), max_size=3).map(tuple)
seconds = st.floats(0, 1e9, allow_nan=False)
names = st.text(st.characters(codec="utf-8"), max_size=8)
specs = st.builds(
    JobSpec,
    command=st.binary(max_size=40),
    argv=st.none() | words,
    shell=words,
    setup=st.binary(max_size=8),
    cwd=st.binary(max_size=8),
    env=st.binary(max_size=20),
    umask=st.none() | st.integers(0, 0o777),
    name=names,
    request=st.builds(
        Request,
        gpus=st.none() | st.integers(0, 9),
        share_milli=st.integers(0, 999),
        vram_mib=st.integers(-1, 10**6),
        gpu_model=names,
        exclusive=st.booleans(),
        likeness=names,
    ),
    priority=st.integers(-(10**9), 10**9),
    retry=st.builds(
        RetryPolicy,
        retries=st.integers(0, 9),
        backoff_s=seconds,
        backoff_max_s=seconds,
        on=st.lists(st.sampled_from(Outcome), max_size=3).map(tuple),
    ),
    retry_args=st.binary(max_size=8),
    time_limit_s=st.none() | seconds,
    grace_s=seconds,
    linger_s=st.none() | seconds,
    held=st.booleans(),
    uid=st.integers(0, 2**32 - 1),
    source=names,
    where=names,
)


@given(st.lists(specs, min_size=1, max_size=8))
def test_a_spec_comes_back_as_it_was_submitted(given_specs: list[JobSpec]) -> None:
    store = SqliteStore.in_memory()
    try:
        desk = Desk(store)
        jobs = [desk.add(spec) for spec in given_specs]
        desk.commit()
        for job, spec in zip(jobs, given_specs, strict=True):
            assert store.spec(job.id) == spec
        loaded = store.load()
        assert {job.id: job for job in loaded.jobs} == desk.state.jobs
    finally:
        store.close()


def test_many_jobs_of_many_shapes_in_one_commit(desk: Desk) -> None:
    """Runs of every length, and a record that moved on before it was first written."""
    envs = [b"A=1", b"A=2\0B=3"]
    specs = [
        JobSpec(b"c%d" % n, env=envs[n // 150 % 2], cwd=b"/d%d" % (n // 70), priority=n // 300)
        for n in range(700)
    ]
    jobs = [desk.add(spec, "no such directory" if n == 333 else "") for n, spec in enumerate(specs)]
    desk.start(jobs[100])
    desk.commit()
    assert [desk.store.spec(job.id) for job in jobs] == specs
    views = desk.store.views([job.id for job in jobs])
    assert [view.command for view in views] == [f"c{n}" for n in range(700)]
    assert [n for n, view in enumerate(views) if view.state == "active"] == [100]
    assert [n for n, view in enumerate(views) if view.why == "no such directory"] == [333]


def test_equal_requests_are_one_object(desk: Desk) -> None:
    desk.add(command("a", cwd=b"/a", request=Request(2)))
    desk.add(command("b", cwd=b"/b", request=Request(2)))
    desk.commit()
    one, two = desk.store.load().jobs
    assert one.request is two.request
    assert one.retry is two.retry


def test_no_spec_of_a_job_that_does_not_exist(store: Store) -> None:
    with pytest.raises(GpudError, match="no such job") as caught:
        store.spec(JobId(7))
    assert caught.value.kind == "not-found"


# -- what the core gets back -------------------------------------------------------------------


def test_jobs_come_back_in_dispatch_order(desk: Desk) -> None:
    late = desk.add(command("late", priority=9))
    low, high, low2 = (desk.add(command("x", priority=p)) for p in (0, 5, 0))
    held = desk.add(command("held", held=True))
    running = desk.add(command("running"))
    desk.start(running)
    desk.start(late, LeasePart("1", 1000))
    desk.end(late, Outcome.FAILED, again_at=99_000)
    desk.commit()
    loaded = desk.store.load()
    assert loaded.jobs == [running, high, low, low2, late, held]
    assert loaded.attempts == [desk.state.attempts[running.id]]
    assert loaded.next_id == desk.state.next_id


def test_a_lease_keeps_its_order(desk: Desk) -> None:
    job = desk.add(command("x", request=Request(2)))
    desk.start(job, LeasePart("1", 250), LeasePart("0", 1000))
    desk.commit()
    assert desk.store.load().attempts[0].lease == (LeasePart("1", 250), LeasePart("0", 1000))
    assert desk.store.views([job.id])[0].lease == ("1:250", "0")


def test_recall_knows_only_what_is_done(desk: Desk) -> None:
    policy = RetryPolicy(retries=3, backoff_s=1.0)
    done, queued = desk.add(command("a", retry=policy, priority=4)), desk.add(command("b"))
    desk.start(done)
    desk.end(done, Outcome.KILLED, "signal 9")
    desk.commit()
    assert desk.store.recall([queued.id, JobId(99), done.id]) == [done]


def test_a_job_that_is_retried_by_a_person_comes_back(desk: Desk) -> None:
    job = desk.add(command("a"))
    desk.start(job)
    desk.end(job, Outcome.FAILED)
    desk.commit()
    (again,) = desk.store.recall([job.id])
    desk.state.requeue(again)
    desk.commit()
    assert desk.store.load().jobs == [again]
    assert desk.store.counts()[1]["failed"] == 0
    desk.start(again)
    desk.commit()
    (detail,) = desk.store.details([job.id])
    assert [(a.attempt, a.outcome, a.phase) for a in detail.attempts] == [
        (1, "failed", ""),
        (2, "", "starting"),
    ]


def test_draining_and_stopped_sources(store: Store) -> None:
    store.commit(Changes(draining=True, stopped={"q": True, "r": True}))
    store.commit(Changes(stopped={"r": False}))
    loaded = store.load()
    assert loaded.draining
    assert loaded.stopped_sources == {"q"}
    store.commit(Changes(draining=False))
    assert not store.load().draining


def test_cursors_and_submissions(store: Store) -> None:
    store.commit(Changes(cursors={"q": Cursor("q", '{"offset":1}')}))
    store.commit(Changes(cursors={"q": Cursor("q", '{"offset":2}')}))
    kept = NewSubmission("key", "digest", JobId(4), 9)
    store.commit(Changes(submissions={"key": kept}))
    assert store.position("q") == '{"offset":2}'
    assert store.submission("key") == kept
    assert store.submission("other") is None


def test_what_was_taken_from_a_source_under_later_generations(desk: Desk) -> None:
    for key, text in [("2:0", "a"), ("9:0", "a"), ("10:0", "a"), ("10:2", "b"), ("11:0", "a")]:
        desk.add(command(text, source="q", entry_key=key))
    desk.add(command("c", source="q", entry_key="12:0"), problem="not understood")
    desk.add(command("a", source="other", entry_key="12:0"))
    desk.add(command("a", source="q"))
    desk.commit()
    assert desk.store.taken("q", 10) == digests(a=2, b=1, c=1)
    assert desk.store.taken("q", 0) == digests(a=4, b=1, c=1)
    assert desk.store.taken("nobody", 0) == {}


# -- what people see ---------------------------------------------------------------------------


def test_views_of_a_life(desk: Desk) -> None:
    job = desk.add(command("train", name="big", source="q", entry_key="1:0", where="q:1"))
    job_id = job.id
    desk.commit()
    (view,) = desk.store.views([job_id])
    assert (view.state, view.phase, view.outcome, view.attempt, view.lease) == (
        *("queued", "", "", 0, ()),
    )
    assert (view.name, view.source, view.where, view.command) == ("big", "q", "q:1", "train")
    desk.start(job, LeasePart("1", 500))
    attempt = desk.state.attempts[job_id]
    attempt.started_at_ms, attempt.pid = desk.now, 77
    desk.state.set_phase(job, Phase.RUNNING)
    desk.commit()
    (view,) = desk.store.views([job_id])
    assert (view.state, view.phase, view.lease) == ("active", "running", ("1:500",))
    assert (view.started_at_ms, view.ended_at_ms, view.exit_code) == (desk.now, 0, None)
    desk.end(job, Outcome.FAILED, "it said so")
    desk.commit()
    (view,) = desk.store.views([job_id])
    assert (view.state, view.phase, view.outcome, view.why) == ("done", "", "failed", "it said so")
    assert (view.exit_code, view.ended_at_ms, view.attempt) == (1, desk.now, 1)


def test_a_command_that_is_not_utf8_is_shown_as_raw(desk: Desk) -> None:
    job = desk.add(JobSpec(b"echo \xff"))
    desk.commit()
    (view,) = desk.store.views([job.id])
    assert isinstance(view.command, Raw)


def test_a_long_command_is_cut_in_views_and_whole_in_details(desk: Desk) -> None:
    for command_ in (b"x" * 5000, "aé".encode() * 5000, b"\xff" * 5000, b"x" * 4000 + b"\xff"):
        job = desk.add(JobSpec(command_))
        desk.commit()
        (view,) = desk.store.views([job.id])
        shown = to_bytes(view.command)
        assert shown.endswith("…".encode())
        assert len(shown.decode(errors="surrogateescape")) <= MOST_OF_COMMAND
        assert command_.startswith(shown.removesuffix("…".encode()))
        (detail,) = desk.store.details([job.id])
        assert to_bytes(detail.job.command) == command_


def test_views_keep_the_order_they_were_asked_in(desk: Desk) -> None:
    ids = [desk.add(command(str(n))).id for n in range(1100)]
    desk.commit()
    wanted = [*ids[::-1], ids[3]]
    assert [view.id for view in desk.store.views(wanted)] == wanted
    assert desk.store.views([]) == []
    assert desk.store.views([JobId(9999)]) == []


def test_a_page(desk: Desk) -> None:
    ended = [desk.add(command("e")) for _ in range(4)]
    for job, outcome in zip(ended, (*[Outcome.FAILED] * 2, *[Outcome.SUCCEEDED] * 2), strict=True):
        desk.start(job)
        desk.end(job, outcome)
    ended.append(desk.add(command("bad"), problem="no such directory"))
    waiting = [desk.add(command("w", priority=p)) for p in (0, 1, 2, 0)]
    held = desk.add(command("h", held=True))
    second, first = desk.add(command("r")), desk.add(command("r"))
    desk.start(first)
    desk.start(second, LeasePart("1", 1000))
    desk.commit()
    order = [first, second, waiting[2], waiting[1], waiting[0], waiting[3], held]
    views, more = desk.store.page(3, 0)
    assert [v.id for v in views] == [job.id for job in ended[-3:] + order]
    assert more == 0
    views, more = desk.store.page(0, 4)
    assert [v.id for v in views] == [job.id for job in order[:4]]
    assert more == 3
    views, more = desk.store.page(2, 1)
    assert [v.id for v in views] == [job.id for job in [*ended[-2:], first]]
    assert more == 6


def test_details(desk: Desk, tmp_path: Path) -> None:
    env = b"PATH=/bin\0SECRET=hunter2\0EMPTY="
    policy = RetryPolicy(retries=2, backoff_s=1.0, backoff_max_s=8.0)
    spec = command(
        *["train"],
        argv=(b"train", b"\xff"),
        shell=(b"/bin/bash", b"-lc"),
        setup=b"module load cuda",
        cwd=b"/data",
        env=env,
        retry=policy,
        retry_args=b"--resume",
        time_limit_s=60.0,
        linger_s=None,
        uid=1000,
    )
    others = [desk.add(command("x")) for _ in range(2)]
    job = desk.add(spec)
    desk.state.changes.story.append(Story(others[0].id, 0, "submitted", 5, {}, 3))
    desk.start(job)
    desk.state.tell(job.id, 1, "dispatched", 6, lease=["0"])
    desk.state.tell(others[0].id, 1, "held", 6)
    desk.commit()
    desk.end(job, Outcome.FAILED, again_at=50_000)
    desk.state.tell(JobId(0), 0, "drained", 7)
    desk.commit()
    (detail,) = desk.store.details([job.id])
    assert detail.job == desk.store.views([job.id])[0]
    assert detail.argv == ("train", Raw("/w=="))
    assert (detail.shell, detail.setup, detail.cwd) == (
        *(("/bin/bash", "-lc"), "module load cuda", "/data"),
    )
    assert detail.env_names == ("PATH", "SECRET", "EMPTY")
    assert (detail.retries, detail.backoff_s, detail.backoff_max_s) == (2, 1.0, 8.0)
    assert (detail.retry_args, detail.time_limit_s, detail.linger_s) == ("--resume", 60.0, None)
    assert (detail.grace_s, detail.uid) == (10.0, 1000)
    (attempt,) = detail.attempts
    assert (attempt.attempt, attempt.phase, attempt.outcome) == (1, "", "failed")
    assert (attempt.lease, attempt.exit_code, attempt.user_s) == (("0",), 1, 1.5)
    assert (attempt.system_s, attempt.max_rss_kib) == (0.0, 2048)
    assert attempt.log == f"{tmp_path}/logs/0/{job.id}.1.log"
    assert [(e.kind, e.job, e.count) for e in detail.story] == [
        ("submitted", others[0].id, 3),
        ("dispatched", job.id, 1),
    ]
    assert detail.story[1].detail == {"lease": ["0"]}
    assert "hunter2" not in repr(detail)


def test_how_long_alike_jobs_ran(desk: Desk) -> None:
    """Those of the same person, of the same name, that succeeded, in the attempt that did."""

    def run(
        takes_ms: int, outcome: Outcome = Outcome.SUCCEEDED, paused_ms: int = 0, **more: Any
    ) -> Job:
        job = desk.add(command("x", **{"name": "n", "uid": 7} | more))
        desk.start(job)
        attempt = desk.state.attempts[job.id]
        attempt.started_at_ms = desk.now + 1 - takes_ms - paused_ms
        attempt.paused_ms = paused_ms
        desk.end(job, outcome)
        return job

    first = run(50)
    run(60, Outcome.FAILED)
    run(70, name="m")
    run(80, uid=8)
    tried = desk.add(command("x", name="n", uid=7))
    desk.start(tried)
    desk.end(tried, Outcome.FAILED, again_at=9_000)
    last = run(90, paused_ms=5)
    nameless, waits = desk.add(command("x")), desk.add(command("x", name="n", uid=7))
    desk.commit()
    store, like = desk.store, Likeness(uid=7, name="n")
    assert [store.likeness(job.id) for job in (first, tried, waits)] == [like] * 3
    assert store.likeness(nameless.id) is None
    assert store.likeness(JobId(99)) is None
    assert store.runs_ms(like, waits.id) == [90, 50]
    assert store.runs_ms(like, last.id) == [50]
    assert store.runs_ms(Likeness(uid=8, name="n"), waits.id) == [80]
    assert store.runs_ms(Likeness(uid=9, name="n"), waits.id) == []


def test_how_long_elements_of_an_array_ran(desk: Desk) -> None:
    """Of those that have run; what has not changed yet is alike, too."""
    desk.add(command("other"))
    many = desk.add(command("x", array=Array(((0, 9, 1),))))
    named = desk.add(command("x", uid=7, name="n", array=Array(((0, 9, 1),))))
    for number, takes_ms in enumerate((50, 60, 70)):
        job = desk.state.split(many, JobId(2 + number))
        desk.start(job)
        desk.state.attempts[job.id].started_at_ms = desk.now + 1 - takes_ms
        desk.end(job, Outcome.FAILED if takes_ms == 60 else Outcome.SUCCEEDED)
    desk.commit()
    store, like = desk.store, Likeness(array=2)
    assert [store.likeness(JobId(job)) for job in (1, 2, 3, 11)] == [None, like, like, like]
    assert store.likeness(JobId(named.rest[0][1])) == Likeness(uid=7, name="n")
    assert store.runs_ms(like, JobId(11)) == [70, 50]
    assert store.runs_ms(like, JobId(4)) == [50]


def test_a_bulk_event_is_in_the_story_of_each_of_its_jobs_and_no_other(desk: Desk) -> None:
    jobs = [desk.add(command("x")).id for _ in range(8)]
    desk.state.changes.story += [
        Story(jobs[1], 0, "submitted", 1, {}, 3),
        Story(jobs[4], 0, "submitted", 2, {}, 2),
    ]
    desk.commit()
    told = [len(detail.story) for detail in desk.store.details(jobs)]
    assert told == [0, 1, 1, 1, 1, 1, 0, 0]


# -- events ------------------------------------------------------------------------------------


def test_events_are_numbered_as_they_are_told(desk: Desk) -> None:
    desk.state.tell(JobId(0), 0, "started", 1, version="0.1")
    desk.state.tell(JobId(0), 0, "drained", 2)
    first = desk.store.commit(desk.state.take_changes())
    desk.state.tell(JobId(0), 0, "undrained", 3)
    second = desk.store.commit(desk.state.take_changes())
    assert [(v.seq, v.kind) for v in first + second] == [
        (1, "started"),
        (2, "drained"),
        (3, "undrained"),
    ]
    assert desk.store.events_after(0, 2) == first
    assert desk.store.events_after(2, 10) == second
    assert desk.store.last_seq() == 3


# -- selectors ---------------------------------------------------------------------------------


@pytest.fixture
def lab(desk: Desk) -> Desk:
    """1 queued big, 2 held, 3 active from q, 4 failed big from q, 5 succeeded, 6 not-started."""
    desk.add(command("1", name="big"))
    desk.add(command("2", held=True))
    three = desk.add(command("3", source="q", entry_key="1:0"))
    four = desk.add(command("4", name="big", source="q", entry_key="1:2"))
    five = desk.add(command("5"))
    desk.add(command("6"), problem="no")
    desk.start(four)
    desk.end(four, Outcome.FAILED)
    desk.start(five)
    desk.end(five, Outcome.SUCCEEDED)
    desk.start(three)
    desk.commit()
    return desk


@pytest.mark.parametrize(
    ("selectors", "ids"),
    [
        ([], []),
        (["4", "2", "4"], [2, 4]),
        (["2-4", "99-100", "1"], None),
        (["5-99"], [5, 6]),
        (["@"], [6]),
        (["@~2", "@~5"], [1, 4]),
        (["name:big"], [1, 4]),
        (["source:q", "1"], [1, 3, 4]),
        (["state:queued"], [1]),
        (["state:held"], [2]),
        (["state:active"], [3]),
        (["state:done"], [4, 5, 6]),
        (["state:failed", "state:not-started"], [4, 6]),
        (["state:lost"], []),
        (["state:bad"], [4, 6]),
        (["state:starting"], [3]),
        (["state:running"], []),
        (["all"], [1, 2, 3, 4, 5, 6]),
        (["all", "3"], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_select(lab: Desk, selectors: list[str], ids: list[int] | None) -> None:
    if ids is not None:
        assert lab.store.select(parse(selectors)) == ids


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        (["1", "7"], "cannot select job 7: no such job"),
        (["all", "7"], "cannot select job 7: no such job"),
        (["7-9"], "cannot select jobs 7-9: no such jobs"),
        (["@~6"], "cannot select job @~6: there are not that many jobs"),
        (["name:small"], 'cannot select "name:small": no job has this name'),
        (["source:r"], 'cannot select "source:r": no job came from this source'),
    ],
)
def test_select_refuses_what_is_not_there(lab: Desk, selectors: list[str], message: str) -> None:
    with pytest.raises(GpudError) as caught:
        lab.store.select(parse(selectors))
    assert caught.value.message == message
    assert caught.value.kind == "not-found"


def test_counts(lab: Desk) -> None:
    states, outcomes = lab.store.counts()
    assert states == {"queued": 1, "held": 1, "active": 1, "done": 3}
    assert {k: n for k, n in outcomes.items() if n} == {
        "failed": 1,
        "succeeded": 1,
        "not-started": 1,
    }
    assert lab.store.source_counts() == {"q": (2, 1)}


# -- what must not be --------------------------------------------------------------------------


def test_a_second_live_attempt_of_a_job_is_a_bug(desk: Desk) -> None:
    job = desk.add(command("x"))
    desk.start(job)
    desk.commit()
    before = desk.store.load()
    attempt = desk.state.attempts.pop(job.id)
    job.state = JobState.QUEUED
    desk.start(job, LeasePart("1", 1000))
    desk.state.tell(job.id, 2, "dispatched", 5)
    with pytest.raises(ContradictionError):
        desk.commit()
    after = desk.store.load()
    assert after == before
    assert after.attempts == [attempt]
    assert desk.store.last_seq() == 0
    assert desk.store.counts()[0]["active"] == 1


def test_an_entry_taken_twice_is_a_bug(desk: Desk) -> None:
    desk.add(command("x", source="q", entry_key="1:0"))
    desk.commit()
    desk.add(command("y", source="q", entry_key="1:0", env=b"NEW=1", cwd=b"/new"))
    with pytest.raises(sqlite3.IntegrityError):
        desk.commit()
    assert desk.store.source_counts() == {"q": (1, 1)}
    assert len(desk.store.load().jobs) == 1
    # What was interned by the transaction that failed is not taken for stored.
    fresh = Desk(desk.store)
    fresh.state.next_id = JobId(2)
    spec = command("z", source="q", entry_key="1:9", env=b"NEW=1", cwd=b"/new")
    job = fresh.add(spec)
    fresh.commit()
    assert fresh.store.spec(job.id) == spec


def test_a_database_that_is_taken_away_takes_no_more_commits(tmp_path: Path) -> None:
    state = State(Pool([]))
    with closing(SqliteStore.open(tmp_path, durable=False)) as store:
        state.add(NewJob(JobSpec(b"x")), 1)
        store.commit(state.take_changes())
        (tmp_path / "gpud.db").rename(tmp_path / "elsewhere")
        state.add(NewJob(JobSpec(b"y")), 1)
        changes = state.take_changes()
        with pytest.raises(StorageError, match="removed or replaced"):
            store.commit(changes)
        (tmp_path / "elsewhere").rename(tmp_path / "gpud.db")
        store.commit(changes)
        assert store.select(Selection(everything=True)) == [1, 2]
