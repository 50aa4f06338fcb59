"""Which jobs come after which: the table of it, both ways.

Called by store/commit.py inside its transaction, and by the queries. What became of the earlier
jobs is in the table of jobs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from gpud.core.model import AT_ONCE, After, Job, JobId, Outcome, Span
from gpud.core.spans import spans_of, without
from gpud.store.arrays import Arrays, after_of
from gpud.store.codec import OUTCOME
from gpud.store.rows import by_size, chunks

INSERT = "INSERT INTO dependencies (job, first, last, ended, patient) VALUES (?,?,?,?,?)"
COLUMNS = "SELECT job, first, last, ended, patient FROM dependencies"
OPEN = f"{COLUMNS} JOIN jobs ON id = job WHERE state <> 'done' ORDER BY job, ended, first"
# What elements of arrays come after is said in the row of their array.
OPEN_ELEMENTS = """SELECT id, content FROM jobs JOIN arrays ON first = array
  WHERE jobs.state <> 'done' AND array <> 0"""
OF_ARRAY = by_size(
    """SELECT id, content FROM jobs JOIN arrays ON first = array
      WHERE array <> 0 AND id IN ({})"""
)
OF_JOBS = by_size(f"{COLUMNS} WHERE job IN ({{}}) ORDER BY job, ended, first")
KNOWN = by_size("SELECT id FROM jobs WHERE id IN ({})")
OUTCOMES = by_size("SELECT id, outcome FROM jobs WHERE state = 'done' AND id IN ({})")


def insert(db: sqlite3.Connection, jobs: Iterable[Job]) -> None:
    rows = [
        (job.id, span.first, span.last, span.ended, job.after.patient)
        for job in jobs
        for span in job.after.spans
    ]
    if rows:
        db.executemany(INSERT, rows)


def replace(db: sqlite3.Connection, jobs: Sequence[Job]) -> None:
    """They come after others than before."""
    db.executemany("DELETE FROM dependencies WHERE job = ?", [(job.id,) for job in jobs])
    insert(db, jobs)


def of_open_jobs(db: sqlite3.Connection) -> dict[JobId, After]:
    elements = {job: after_of(content) for job, content in db.execute(OPEN_ELEMENTS)}
    return _by_job(db.execute(OPEN)) | elements


def of_jobs(db: sqlite3.Connection, jobs: Sequence[int]) -> dict[JobId, After]:
    """Without those that come after none."""
    found: dict[JobId, After] = {}
    for part in chunks(jobs):
        found |= _by_job(db.execute(OF_JOBS[len(part)], part))
        found |= {job: after_of(content) for job, content in db.execute(OF_ARRAY[len(part)], part)}
    return found


def outcomes(db: sqlite3.Connection, jobs: Sequence[int]) -> dict[JobId, Outcome]:
    """Of those of `jobs` that are done."""
    found: dict[JobId, Outcome] = {}
    for part in chunks(jobs):
        rows = db.execute(OUTCOMES[len(part)], part)
        found |= {job: OUTCOME[outcome] for job, outcome in rows}
    return found


def come_after(afters: Iterable[After]) -> list[int]:
    """All jobs that any of these names."""
    spans = {(span.first, span.last) for after in afters for span in after.spans}
    return sorted({job for first, last in spans for job in range(first, last + 1)})


def without_gone(db: sqlite3.Connection, arrays: Arrays, jobs: Sequence[Job]) -> None:
    """Jobs that are no longer kept keep nobody waiting: none that is not done comes after one, but
    for a job that was done itself then and is tried again."""
    wanted = come_after(job.after for job in jobs)
    known = {id_ for part in chunks(wanted) for (id_,) in db.execute(KNOWN[len(part)], part)}
    gone = spans_of(id_ for id_ in wanted if id_ not in known and arrays.of_element(id_) is None)
    if not gone:
        return
    for job in jobs:
        left = tuple(
            Span(first, last, span.ended)
            for span in job.after.spans
            for first, last in without(((span.first, span.last),), gone)
        )
        if left != job.after.spans:
            job.after = After(left, job.after.patient) if left else AT_ONCE


def _by_job(rows: Iterable[tuple[int, int, int, int, int]]) -> dict[JobId, After]:
    spans: dict[JobId, list[Span]] = {}
    patient: dict[JobId, bool] = {}
    for job, first, last, ended, waits in rows:
        spans.setdefault(JobId(job), []).append(Span(first, last, bool(ended)))
        patient[JobId(job)] = bool(waits)
    return {job: After(tuple(found), patient[job]) for job, found in spans.items()}
