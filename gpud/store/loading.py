"""What the core needs back: everything that is not done, single records, one job's spec.

Read-only. Called by SqliteStore.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import structs

from gpud.core.model import Attempt, Job, JobSpec, JobState, LeasePart
from gpud.core.state import NewSubmission
from gpud.errors import GpudError
from gpud.ports import Loaded
from gpud.store.codec import OUTCOME, PHASE, decode_argv, decode_rusage
from gpud.store.intern import Interned
from gpud.store.rows import by_size, chunks

RECORD = """SELECT id, template, priority, submitted_at_ms, retries_left, jobs.attempt, retry_no,
  not_before_ms FROM"""
# CROSS: the few live attempts first, then their jobs.
ACTIVE = f"""{RECORD} attempts CROSS JOIN jobs ON id = job
  WHERE attempts.outcome IS NULL AND state = ? ORDER BY id"""
# In the order in which the index `jobs_waiting` has them: no sorting.
WAITING = f"""{RECORD} jobs WHERE state = ? AND state <> 'done' AND state <> 'active'
  ORDER BY not_before_ms, priority DESC, id"""
LIVE = """SELECT job, no, phase, boot_id, dispatched_at_ms, started_at_ms, pid, stop_grace_s,
  ended_at_ms, exit_code, signal, why, rusage FROM attempts WHERE outcome IS NULL ORDER BY job"""
LEASE = "SELECT device, milli FROM leases WHERE job = ? AND attempt = ? ORDER BY part"
ENDED = by_size(
    """SELECT id, template, priority, submitted_at_ms, retries_left, attempt, retry_no, outcome,
      ended_at_ms, why FROM jobs WHERE state = 'done' AND id IN ({})"""
)
SPEC = """SELECT template, command, argv, name, priority, source, entry_key, origin FROM jobs
  WHERE id = ?"""

# The cast reads the digits up to the colon.
TAKEN = """SELECT command, count(*) FROM jobs WHERE source = ? AND source <> ''
  AND CAST(entry_key AS INTEGER) >= ? GROUP BY command"""


def load(db: sqlite3.Connection, interned: Interned) -> Loaded:
    next_id, draining = db.execute("SELECT next_id, draining FROM meta").fetchone()
    jobs: list[Job] = []
    jobs.extend(_records(db, interned, ACTIVE, JobState.ACTIVE))
    jobs.extend(_records(db, interned, WAITING, JobState.QUEUED))
    jobs.extend(_records(db, interned, WAITING, JobState.HELD))
    return Loaded(
        jobs=jobs,
        attempts=[_live(db, row) for row in db.execute(LIVE).fetchall()],
        next_id=next_id,
        draining=bool(draining),
        stopped_sources=frozenset(
            name for (name,) in db.execute("SELECT name FROM sources WHERE stopped")
        ),
    )


def _records(
    db: sqlite3.Connection, interned: Interned, query: str, state: JobState
) -> Iterator[Job]:
    last = None
    for job_id, template, priority, submitted, retries_left, attempt, retry_no, due in db.execute(
        query, (state.value,)
    ):
        if template != last:
            last, common = template, interned.template(template)[1]
            request, retry, grace_s = common.request, common.retry, common.grace_s
        yield Job(
            job_id,
            request,
            priority,
            retry,
            grace_s,
            state,
            submitted,
            retries_left,
            attempt,
            retry_no,
            due,
        )


def _live(db: sqlite3.Connection, row: tuple[Any, ...]) -> Attempt:
    job, no, phase, boot_id, dispatched, started, pid, grace, ended, code, signal, why, usage = row
    return Attempt(
        job=job,
        no=no,
        phase=PHASE[phase],
        lease=lease_of(db, job, no),
        boot_id=boot_id,
        dispatched_at_ms=dispatched,
        started_at_ms=started,
        pid=pid,
        stop_grace_s=grace,
        ended_at_ms=ended,
        exit_code=code,
        signal=signal,
        why=why,
        rusage=decode_rusage(usage),
    )


def lease_of(db: sqlite3.Connection, job: int, attempt: int) -> tuple[LeasePart, ...]:
    return tuple(LeasePart(*row) for row in db.execute(LEASE, (job, attempt)))


def recall(db: sqlite3.Connection, interned: Interned, jobs: Sequence[int]) -> list[Job]:
    """The records of those of `jobs` that exist and are done, in the order of `jobs`."""
    found: dict[int, Job] = {}
    for part in chunks(jobs):
        for row in db.execute(ENDED[len(part)], part).fetchall():
            found[row[0]] = _ended(interned, row)
    return [found[job] for job in jobs if job in found]


def _ended(interned: Interned, row: tuple[Any, ...]) -> Job:
    job, template, priority, submitted, left, attempt, retry_no, outcome, ended, why = row
    common = interned.template(template)[1]
    return Job(
        id=job,
        request=common.request,
        priority=priority,
        retry=common.retry,
        grace_s=common.grace_s,
        state=JobState.DONE,
        submitted_at_ms=submitted,
        retries_left=left,
        attempt=attempt,
        retry_no=retry_no,
        outcome=OUTCOME[outcome],
        ended_at_ms=ended,
        why=why,
    )


def spec(db: sqlite3.Connection, interned: Interned, job: int) -> JobSpec:
    row = db.execute(SPEC, (job,)).fetchone()
    if row is None:
        raise GpudError(f"cannot read the spec of job {job}: no such job", kind="not-found")
    template, command, argv, name, priority, source, entry_key, where = row
    environment, common = interned.template(template)
    return JobSpec(
        command=command,
        argv=decode_argv(argv),
        env=interned.environment(environment),
        name=name,
        priority=priority,
        source=source,
        entry_key=entry_key,
        where=where,
        **structs.asdict(common),
    )


def submission(db: sqlite3.Connection, key: str) -> NewSubmission | None:
    row = db.execute(
        "SELECT key, digest, first, count FROM submissions WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else NewSubmission(*row)


def position(db: sqlite3.Connection, source: str) -> str | None:
    row = db.execute("SELECT position FROM sources WHERE name = ?", (source,)).fetchone()
    return None if row is None else row[0]


def taken(db: sqlite3.Connection, source: str, generation: int) -> dict[bytes, int]:
    """How often each command was taken under an entry key "G:…" with G >= `generation`."""
    return dict(db.execute(TAKEN, (source, generation)))
