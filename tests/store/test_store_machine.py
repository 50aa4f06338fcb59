"""Replay equality: whatever the core did, the store gives back the state it committed.

A machine moves jobs by the core's own mutations and commits now and then; some commits are
interrupted in the middle and repeated. After each one `load` is compared with the state in memory,
and what is counted along is compared with counting.
"""

from __future__ import annotations

import copy
import itertools
import shutil
import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec import structs

from gpud.core.changes import Changes
from gpud.core.entries import entry_digest
from gpud.core.events import Edit, EditRequested, MoveRequested
from gpud.core.model import (
    Cursor,
    Device,
    Job,
    JobId,
    JobSpec,
    JobState,
    NewJob,
    Outcome,
    Phase,
    Request,
    RetryPolicy,
    Rusage,
)
from gpud.core.placement import place
from gpud.core.pool import Pool
from gpud.core.scheduler import handle
from gpud.core.state import State
from gpud.protocol.replies import EventView
from gpud.protocol.selectors import Selection
from gpud.store.sqlite import SqliteStore

OUTCOMES = st.sampled_from(Outcome)


class StoreMachine(RuleBasedStateMachine):
    on_disk = False

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp()) if self.on_disk else None
        self.store = self.open()
        devices = [Device("0", ("0",)), Device("1", ("1",), 4), Device("cpu", (), 4)]
        self.state = State(Pool(devices))
        self.state.boot_id = "a-boot"
        self.everything: dict[int, Job] = {}  # as committed, done ones included
        self.sources: dict[int, str] = {}
        self.specs: dict[int, JobSpec] = {}  # as committed
        self.told: list[tuple[int, str]] = []
        self.now = 1_000

    def open(self) -> SqliteStore:
        if self.directory is None:
            return SqliteStore.in_memory()
        return SqliteStore.open(self.directory, durable=False)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            if self.directory is not None:
                shutil.rmtree(self.directory)

    def pick(self, data: st.DataObject, *states: JobState) -> Job | None:
        jobs = [job for job in self.state.jobs.values() if job.state in states]
        return data.draw(st.sampled_from(jobs)) if jobs else None

    # -- what the core does ----------------------------------------------------------------

    @rule(
        count=st.integers(1, 12),
        priority=st.integers(-2, 2),
        gpus=st.sampled_from([None, 0, 1]),
        env=st.sampled_from([b"", b"A=1", b"A=2"]),
        held=st.booleans(),
        problem=st.sampled_from(["", "", "", "no such directory"]),
        source=st.sampled_from(["", "q", "r"]),
    )
    def submit(
        self,
        count: int,
        priority: int,
        gpus: int | None,
        env: bytes,
        held: bool,
        problem: str,
        source: str,
    ) -> None:
        for _ in range(count):
            key = f"1:{self.state.next_id}" if source else None
            spec = JobSpec(
                b"c%d" % self.state.next_id,
                name="odd" if self.state.next_id % 2 else "",
                env=env,
                request=Request(gpus),
                priority=priority,
                retry=RetryPolicy(retries=2),
                held=held,
                source=source,
                entry_key=key,
            )
            job = self.state.add(NewJob(spec, problem), self.now)
            self.sources[job.id] = source
        if source:
            self.state.changes.cursors[source] = Cursor(source, str(self.state.next_id))

    @rule(data=st.data())
    def dispatch(self, data: st.DataObject) -> None:
        job = self.pick(data, JobState.QUEUED)
        lease = place(self.state.pool, job.request) if job is not None else None
        if job is not None and lease is not None and not job.not_before_ms:
            self.state.activate(job, lease, self.now)
            self.state.tell(job.id, job.attempt, "dispatched", self.now, lease=[str(lease)])

    @rule(data=st.data())
    def started(self, data: st.DataObject) -> None:
        job = self.pick(data, JobState.ACTIVE)
        if job is not None and self.state.attempts[job.id].phase is Phase.STARTING:
            attempt = self.state.attempts[job.id]
            attempt.pid, attempt.started_at_ms = 4_000_000 + job.id, self.now
            self.state.set_phase(job, Phase.RUNNING)

    @rule(data=st.data(), outcome=OUTCOMES, again=st.booleans(), delay=st.integers(0, 50))
    def ended(self, data: st.DataObject, outcome: Outcome, again: bool, delay: int) -> None:
        job = self.pick(data, JobState.ACTIVE)
        if job is None:
            return
        attempt = self.state.attempts[job.id]
        attempt.outcome, attempt.ended_at_ms, attempt.why = outcome, self.now, "so it was"
        attempt.exit_code = None if outcome is Outcome.LOST else int(outcome != Outcome.SUCCEEDED)
        attempt.rusage = Rusage(0.5, 0.25, 1000) if delay else None
        self.state.tell(job.id, job.attempt, "ended", self.now, outcome=outcome)
        if again and attempt.phase is not Phase.STOPPING:
            job.retries_left -= 1
            job.retry_no += 1
            self.state.requeue(job, self.now + delay if delay else 0)
        else:
            self.state.finish(job, outcome, "so it was", self.now)

    @rule(data=st.data())
    def hold_or_release(self, data: st.DataObject) -> None:
        job = self.pick(data, JobState.QUEUED, JobState.HELD)
        if job is not None and job.state is JobState.HELD:
            self.state.requeue(job)
        elif job is not None:
            self.state.hold(job)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.pick(data, JobState.QUEUED, JobState.HELD)
        if job is not None:
            self.state.finish(job, Outcome.CANCELLED, "", self.now)

    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        done = [
            job_id
            for job_id, job in self.everything.items()
            if job.state is JobState.DONE and job_id not in self.state.changes.jobs
        ]
        if done:
            job_id = data.draw(st.sampled_from(done))
            (job,) = self.store.recall([job_id])
            assert job == self.everything[job_id]
            self.state.requeue(job)

    @rule(data=st.data(), field=st.sampled_from(["command", "env", "priority", "name", "request"]))
    def edit(self, data: st.DataObject, field: str) -> None:
        job = self.pick(data, JobState.QUEUED, JobState.HELD)
        if job is not None and job.id in self.specs:
            was = structs.replace(self.specs[job.id], priority=job.priority)
            values = {"command": b"z%d", "env": b"A=%d", "priority": 3, "name": "other"}
            value = values.get(field, Request(0))
            value = value % (job.id % 3) if isinstance(value, bytes) else value
            becomes = structs.replace(was, **{field: value})
            handle(self.state, EditRequested(1, (Edit(job.id, was, becomes),)), self.now)

    @rule(data=st.data(), to=st.sampled_from(["before", "after", "first", "last"]))
    def move(self, data: st.DataObject, to: str) -> None:
        job = self.pick(data, JobState.QUEUED, JobState.HELD)
        other = self.pick(data, JobState.QUEUED, JobState.HELD)
        if job is not None and other is not None:
            beside = other.id if to in ("before", "after") else JobId(0)
            handle(self.state, MoveRequested(1, (job.id,), to, beside), self.now)

    @rule(milliseconds=st.integers(1, 100))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.state.make_due(self.now)

    @rule(draining=st.booleans())
    def drain(self, draining: bool) -> None:
        self.state.draining = self.state.changes.draining = draining

    @rule(source=st.sampled_from(["q", "s"]), stopped=st.booleans())
    def switch(self, source: str, stopped: bool) -> None:
        self.state.changes.stopped[source] = stopped
        (self.state.stopped_sources.add if stopped else self.state.stopped_sources.discard)(source)

    # -- commits ---------------------------------------------------------------------------

    @rule(interrupt=st.none() | st.integers(0, 60))
    def commit(self, interrupt: int | None = None) -> None:
        changes = self.state.take_changes()
        before = self.store.last_seq()
        views = self.interrupted(changes, interrupt) if interrupt is not None and changes else None
        if views is None:
            views = self.store.commit(changes)
        assert [v.seq for v in views] == list(range(before + 1, before + 1 + len(changes.story)))
        self.told += [(story.job, story.kind) for story in changes.story]
        for job_id, job in changes.jobs.items():
            self.everything[job_id] = copy.copy(job)
        new = {job_id: new.spec for job_id, new in changes.new}
        self.specs |= new | changes.edited
        self.compare()

    def interrupted(self, changes: Changes, looks: int) -> list[EventView] | None:
        """A commit that may be stopped in the middle: None if it was, and then nothing is written
        and nothing remembered. SQLite's machine looks every few steps whether it should stop."""
        counted = self.store.counts(), self.store.source_counts(), self.store.last_seq()
        look = itertools.count()
        self.store._db.set_progress_handler(lambda: next(look) == looks, 5)
        try:
            return self.store.commit(changes)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_INTERRUPT":
                raise
        finally:
            self.store._db.set_progress_handler(None, 0)
        assert (self.store.counts(), self.store.source_counts(), self.store.last_seq()) == counted
        return None

    @precondition(lambda self: self.directory is not None)
    @rule()
    def reopen(self) -> None:
        self.commit()
        self.store.close()
        self.store = self.open()
        self.compare()

    def compare(self) -> None:
        loaded = self.store.load()
        assert {job.id: job for job in loaded.jobs} == self.state.jobs
        assert {a.job: a for a in loaded.attempts} == self.state.attempts
        assert loaded.next_id == self.state.next_id
        assert loaded.draining == self.state.draining
        assert loaded.stopped_sources == self.state.stopped_sources
        self.compare_counts()
        self.compare_page()
        self.compare_rows()
        self.compare_specs()
        assert self.store.select(Selection(everything=True)) == sorted(self.everything)
        assert [(e.job, e.kind) for e in self.store.events_after(0, 9999)] == self.told

    def compare_rows(self) -> None:
        """What the store remembers beside the database, against the database."""
        db = self.store._db
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        missing = "SELECT id FROM jobs WHERE template NOT IN (SELECT id FROM templates)"
        assert db.execute(missing).fetchall() == []
        live = {a.job: a.no for a in self.state.attempts.values()}
        assert self.store._writer._live == live

    def compare_specs(self) -> None:
        for job_id, job in self.everything.items():
            assert self.store.spec(job_id) == structs.replace(
                self.specs[job_id], priority=job.priority
            )
        for source in ("q", "r"):
            entries = [entry_digest(f"c{job_id}".encode()) for job_id in self.everything]
            taken = Counter(
                c
                for c, j in zip(entries, self.everything, strict=True)
                if self.sources[j] == source
            )
            assert self.store.taken(source, 0) == taken

    def compare_counts(self) -> None:
        states, outcomes = self.store.counts()
        assert +Counter(states) == Counter(j.state.value for j in self.everything.values())
        ended = [job.outcome.value for job in self.everything.values() if job.outcome]
        assert +Counter(outcomes) == Counter(ended)
        taken = Counter(self.sources[job_id] for job_id in self.everything)
        waiting = Counter(self.sources[job_id] for job_id in self.state.jobs)
        counted = self.store.source_counts()
        for source in ("q", "r"):
            assert counted.get(source, (0, 0)) == (taken[source], waiting[source])

    def compare_page(self) -> None:
        views, more = self.store.page(5, 0)
        assert more == 0
        done = [j for j in self.everything.values() if j.state is JobState.DONE]
        done.sort(key=lambda j: (j.ended_at_ms, j.id))
        rank = {JobState.ACTIVE: 0, JobState.QUEUED: 1, JobState.HELD: 2}
        rest = sorted(
            self.state.jobs.values(),
            key=lambda j: (
                rank[j.state],
                self.state.attempts[j.id].dispatched_at_ms if j.id in self.state.attempts else 0,
                j.not_before_ms,
                (0, 0) if j.state is JobState.ACTIVE else (-j.priority, j.place or j.id),
                j.id,
            ),
        )
        assert [v.id for v in views] == [j.id for j in done[-5:] + rest]
        for view in views:
            job = self.everything[view.id]
            assert (view.state, view.attempt, view.why) == (job.state, job.attempt, job.why)


class DiskMachine(StoreMachine):
    on_disk = True


TestMemory = StoreMachine.TestCase
TestDisk = DiskMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40)
TestDisk.settings = settings(max_examples=25, stateful_step_count=40)
