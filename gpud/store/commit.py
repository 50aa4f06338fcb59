"""Changes to rows: one transaction, as few statements as there are kinds of change.

Owns every INSERT and UPDATE of what the core decides, but for new jobs (store/inserting.py) and
edited ones (store/editing.py).
Called by SqliteStore.commit; the caller rolls back when anything here raises.

Rule 1: which attempts are already stored is known without asking: exactly the live ones, since an
attempt that has ended never changes again. The same for jobs: from the first of `changes.new` on,
none is. A second live attempt of a job is a bug of the core that does not get past here.
Rule 2: what is remembered beside the database (tally, live attempts, interned ids, the sequence
number) changes only after COMMIT has returned.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from msgspec.structs import astuple

from gpud.core.changes import Changes
from gpud.core.lifecycle import ContradictionError
from gpud.core.model import Attempt, Job, JobId, JobState, Outcome
from gpud.protocol.replies import EventView
from gpud.store import dependencies, editing, gating, owning
from gpud.store.arrays import Arrays, moves
from gpud.store.codec import (
    VALUE,
    encode_amended,
    encode_detail,
    encode_lease,
    encode_on_gpu,
    encode_rusage,
)
from gpud.store.inserting import Inserter
from gpud.store.intern import Interned
from gpud.store.tally import Kind, Tally, kind_of

UPDATE_JOB = """UPDATE jobs SET state = ?, priority = ?, retries_left = ?, attempt = ?,
  retry_no = ?, not_before_ms = ?, outcome = ?, ended_at_ms = ?, why = ?,
  amended = ?, place = ? WHERE id = ?"""
INSERT_ATTEMPT = """INSERT INTO attempts (phase, started_at_ms, pid, stop_grace_s, ended_at_ms,
  outcome, exit_code, signal, why, rusage, on_gpu, job, no, boot_id, dispatched_at_ms, lease)
  VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"""
UPDATE_ATTEMPT = """UPDATE attempts SET phase = ?, started_at_ms = ?, pid = ?, stop_grace_s = ?,
  ended_at_ms = ?, outcome = ?, exit_code = ?, signal = ?, why = ?, rusage = ?, on_gpu = ?
  WHERE job = ? AND no = ?"""
INSERT_EVENT = """INSERT INTO events (seq, at_ms, job, attempt, count, kind, detail)
  VALUES (?,?,?,?,?,?,?)"""
INSERT_SUBMISSION = "INSERT INTO submissions (key, digest, first, count) VALUES (?,?,?,?)"
SET_POSITION = """INSERT INTO sources (name, position) VALUES (?, ?)
  ON CONFLICT (name) DO UPDATE SET position = excluded.position"""
SET_STOPPED = """INSERT INTO sources (name, stopped) VALUES (?, ?)
  ON CONFLICT (name) DO UPDATE SET stopped = excluded.stopped"""
ADD_TAKEN = """INSERT INTO sources (name, taken) VALUES (?, ?)
  ON CONFLICT (name) DO UPDATE SET taken = taken + excluded.taken"""

SET_QUARANTINE = """REPLACE INTO quarantines (uuid, why, at_ms, boot_id, base_mib)
  VALUES (?,?,?,?,?)"""
SET_USUAL = "REPLACE INTO usual_memory (likeness, mib) VALUES (?,?)"


class Writer:
    """Writes `Changes`, and remembers what saves asking the database."""

    def __init__(
        self,
        db: sqlite3.Connection,
        interned: Interned,
        arrays: Arrays,
        tally: Tally,
        groups: gating.Groups,
    ) -> None:
        self._db = db
        self._interned = interned
        self._arrays = arrays
        self._tally = tally
        self._groups = groups
        self._live: dict[int, int] = dict(
            db.execute("SELECT id, attempt FROM jobs WHERE state = 'active' AND state <> 'done'")
        )
        self.last_seq: int = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]

    def write(self, changes: Changes) -> list[EventView]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        moved: dict[Kind, int] = {}
        taken: dict[str, int] = {}
        known = changes.jobs
        new_arrays = {job: new for job, new in changes.new if JobId(-job) in known}
        elements, rest = self._arrays.write(changes, new_arrays)
        moves(changes, new_arrays, moved)
        if changes.new:
            new = [(job, item) for job, item in changes.new if job not in new_arrays]
            Inserter(db, self._interned, moved, taken).insert(new, known)
            dependencies.insert(db, (known[job] for job, _ in new))
            for item in new_arrays.values():
                if source := item.spec.source:
                    taken[source] = taken.get(source, 0) + 1
            first = changes.new[0][0]
            known = {
                job: record for job, record in known.items() if 0 < job < first or job in elements
            }
        elif rest or elements or changes.ends:
            known = {job: record for job, record in known.items() if job > 0}
        _count(known, changes.before, moved)
        if updated := [_job_row(job) for job in known.values() if job.id not in elements]:
            db.executemany(UPDATE_JOB, updated)
        if changes.edited:
            editing.rewrite(db, self._interned, changes.edited)
            dependencies.replace(db, [changes.jobs[job] for job in changes.edited])
        if changes.attempts:
            self._write_attempts(changes.attempts.values())
        views = self._number(changes)
        if views:
            db.executemany(INSERT_EVENT, [_event_row(view) for view in views])
        if changes.submissions:
            rows = [(s.key, s.digest, s.first, s.count) for s in changes.submissions.values()]
            db.executemany(INSERT_SUBMISSION, rows)
        if changes.cursors:
            rows_ = [(cursor.source, cursor.position) for cursor in changes.cursors.values()]
            db.executemany(SET_POSITION, rows_)
        if taken:
            db.executemany(ADD_TAKEN, list(taken.items()))
        if changes.stopped:
            db.executemany(SET_STOPPED, list(changes.stopped.items()))
        for uuid, quarantine in changes.quarantines.items():
            if quarantine is None:
                db.execute("DELETE FROM quarantines WHERE uuid = ?", (uuid,))
            else:
                db.execute(SET_QUARANTINE, (uuid, *astuple(quarantine)))
        if changes.usual_mib:
            db.executemany(SET_USUAL, list(changes.usual_mib.items()))
        if changes.gates or changes.usage:
            gating.write(db, changes)
        if changes.audit:
            owning.write_audit(db, changes.audit)
        if changes.next_id is not None:
            db.execute("UPDATE meta SET next_id = ?", (changes.next_id,))
        if changes.draining is not None:
            db.execute("UPDATE meta SET draining = ?", (changes.draining,))
        db.execute("COMMIT")
        self._arrays.committed(rest)
        self._committed(changes, moved, taken)
        self._groups.move(changes, elements)
        return views

    def _committed(self, changes: Changes, moved: dict[Kind, int], taken: dict[str, int]) -> None:
        self._interned.kept()
        self._tally.move(moved, taken)
        self.last_seq += len(changes.story)
        for (job, no), attempt in changes.attempts.items():
            if attempt.outcome is None:
                self._live[job] = no
            elif self._live.get(job) == no:
                del self._live[job]

    def _write_attempts(self, attempts: Iterable[Attempt]) -> None:
        live = self._live
        old, new, ended = [], [], set()
        for attempt in attempts:
            row = _attempt_row(attempt)
            no = live.get(attempt.job)
            if no == attempt.no:
                old.append(row)
                if attempt.outcome is not None:
                    ended.add(attempt.job)
            elif no is not None and attempt.job not in ended:
                raise ContradictionError(f"job {attempt.job} has attempt {no}, and begins another")
            else:
                lease = encode_lease(attempt.lease)
                new.append((*row, attempt.boot_id, attempt.dispatched_at_ms, lease))
        if old:
            self._db.executemany(UPDATE_ATTEMPT, old)
        if new:
            self._db.executemany(INSERT_ATTEMPT, new)

    def _number(self, changes: Changes) -> list[EventView]:
        return [
            EventView(seq, s.at_ms, s.job, s.attempt, s.kind, s.detail, s.count)
            for seq, s in enumerate(changes.story, self.last_seq + 1)
        ]


def _count(
    known: Mapping[JobId, Job],
    before: Mapping[JobId, tuple[JobState, Outcome | None]],
    moved: dict[Kind, int],
) -> None:
    """One less of the kind that each job was, one more of the kind it has become."""
    for job_id, (state, outcome) in before.items():
        if (job := known.get(job_id)) is not None:
            was = kind_of(state, outcome, job.source)
            became = kind_of(job.state, job.outcome, job.source)
            moved[was] = moved.get(was, 0) - 1
            moved[became] = moved.get(became, 0) + 1


def _job_row(job: Job) -> tuple[object, ...]:
    return (
        VALUE[job.state],
        job.priority,
        job.retries_left,
        job.attempt,
        job.retry_no,
        job.not_before_ms,
        None if job.outcome is None else VALUE[job.outcome],
        job.ended_at_ms,
        job.why,
        encode_amended(job),
        job.place or None,
        job.id,
    )


def _attempt_row(attempt: Attempt) -> tuple[object, ...]:
    return (
        VALUE[attempt.phase],
        attempt.started_at_ms,
        attempt.pid,
        attempt.stop_grace_s,
        attempt.ended_at_ms,
        None if attempt.outcome is None else VALUE[attempt.outcome],
        attempt.exit_code,
        attempt.signal,
        attempt.why,
        encode_rusage(attempt.rusage),
        encode_on_gpu(attempt),
        attempt.job,
        attempt.no,
    )


def _event_row(view: EventView) -> tuple[object, ...]:
    return (
        view.seq,
        view.at_ms,
        view.job,
        view.attempt,
        view.count,
        view.kind,
        encode_detail(view.detail),
    )
