"""What the core needs back: everything that is not done, single records, one job's spec.

Read-only. Called by SqliteStore.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpud.core.changes import NewSubmission
from gpud.core.entries import entry_digest
from gpud.core.health import Quarantine
from gpud.core.model import AT_ONCE, Attempt, Job, JobSpec, JobState
from gpud.core.rules import keys_of
from gpud.core.shape import last_start_ms, within_s
from gpud.errors import GpudError
from gpud.ports import Loaded
from gpud.store import dependencies, gating
from gpud.store.arrays import Arrays
from gpud.store.codec import (
    OUTCOME,
    PHASE,
    decode_amended,
    decode_argv,
    decode_lease,
    decode_on_gpu,
    decode_rusage,
)
from gpud.store.intern import Interned
from gpud.store.rows import by_size, chunks

READ_AHEAD = 32
READ_AHEAD_BYTES = 1 << 16
RECORD = """SELECT id, template, priority, submitted_at_ms, retries_left, attempt, retry_no,
  not_before_ms, source, amended, array, place, why FROM"""
# In the order in which the index `jobs_open` has them: no sorting. The term that looks superfluous
# is that of the index.
OPEN = f"""{RECORD} jobs WHERE state = ? AND state <> 'done'
  ORDER BY not_before_ms, priority DESC, ifnull(place, id), id"""
LIVE = """SELECT job, no, phase, boot_id, dispatched_at_ms, started_at_ms, pid, stop_grace_s,
  attempts.ended_at_ms, exit_code, signal, attempts.why, rusage, lease, on_gpu
  FROM jobs CROSS JOIN attempts ON job = id AND no = jobs.attempt
  WHERE state = 'active' AND state <> 'done' ORDER BY id"""
ENDED = by_size(
    """SELECT id, template, priority, submitted_at_ms, retries_left, attempt, retry_no, outcome,
      ended_at_ms, why, source, amended, array, place FROM jobs WHERE state = 'done'
      AND id IN ({})"""
)
SPECS = """SELECT id, template, command, argv, name, priority, source, entry_key, origin, array
  FROM jobs WHERE id BETWEEN ? AND ?"""

# The cast reads the digits up to the colon.
TAKEN = """SELECT ifnull(entry_command, command), count(*) FROM (
    SELECT command, entry_command, source, entry_key FROM jobs
      WHERE source = :source AND source <> ''
    UNION ALL SELECT command, NULL, source, entry_key FROM arrays WHERE source = :source)
  WHERE CAST(entry_key AS INTEGER) >= :generation GROUP BY 1"""
TAKEN_ONCE = """SELECT digest, count(*) FROM past_entries
  WHERE source = :source AND CAST(entry_key AS INTEGER) >= :generation GROUP BY 1"""


def load(db: sqlite3.Connection, interned: Interned, arrays: Arrays) -> Loaded:
    next_id, draining = db.execute("SELECT next_id, draining FROM meta").fetchone()
    jobs: list[Job] = []
    for state in (JobState.ACTIVE, JobState.QUEUED, JobState.HELD):
        jobs.extend(_records(db, interned, state))
    if afters := dependencies.of_open_jobs(db):
        for job in jobs:
            job.after = afters.get(job.id, AT_ONCE)
    jobs += arrays.records()
    dependencies.without_gone(db, arrays, [job for job in jobs if job.after.spans])
    return Loaded(
        jobs=jobs,
        attempts=[_live(row) for row in db.execute(LIVE)],
        next_id=next_id,
        draining=bool(draining),
        stopped_sources=frozenset(
            name for (name,) in db.execute("SELECT name FROM sources WHERE stopped")
        ),
        quarantines={
            uuid: Quarantine(*row)
            for uuid, *row in db.execute(
                "SELECT uuid, why, at_ms, boot_id, base_mib FROM quarantines"
            )
        },
        usual_mib=dict(db.execute("SELECT likeness, mib FROM usual_memory")),
        outcomes=dependencies.outcomes(db, dependencies.come_after(job.after for job in jobs)),
        arrays=tuple(db.execute("SELECT first, last FROM arrays ORDER BY first")),
        gates=gating.kept(db),
        usage=gating.usage(db),
    )


def _records(db: sqlite3.Connection, interned: Interned, state: JobState) -> Iterator[Job]:
    last = None
    for row in db.execute(OPEN, (state.value,)):
        job_id, template, priority, submitted, retries_left, attempt, retry_no, due = row[:8]
        source, amended, array, place, why = row[8:]
        if (template, source, array) != last:
            last = (template, source, array)
            common = interned.template(template)[1]
            uid = common.uid
            belongs = keys_of(common.group, uid, source, common.labels, array)
            request, retry, grace_s = common.request, common.retry, common.grace_s
            bound_s = within_s(common.time_limit_s, grace_s, common.linger_s)
            last_ms = last_start_ms(common.deadline_ms, common.time_limit_s)
        more = decode_amended(amended)
        job = Job(
            job_id,
            more.request or request,
            priority,
            retry,
            grace_s,
            state,
            submitted,
            retries_left,
            attempt,
            retry_no,
            due,
            source=sys.intern(source),
            within_s=bound_s,
            grown=more.request is not None,
            setbacks=more.setbacks,
            retry_args=more.retry_args,
            resume=more.resume,
            begin_ms=common.begin_ms,
            last_start_ms=last_ms,
            checkpoint=common.checkpoint,
            array=array,
            place=place or 0,
        )
        # Not by keyword: msgspec looks through all fields for each of these.
        job.why, job.uid, job.belongs, job.held_by = why, uid, belongs, more.held_by
        yield job


def _live(row: tuple[Any, ...]) -> Attempt:
    job, no, phase, boot_id, dispatched, started, pid, grace, ended, code, signal = row[:11]
    why, rusage, lease, column = row[11:]
    on_gpu = decode_on_gpu(column)
    return Attempt(
        job=job,
        no=no,
        phase=PHASE[phase],
        lease=decode_lease(lease),
        boot_id=boot_id,
        dispatched_at_ms=dispatched,
        started_at_ms=started,
        pid=pid,
        stop_grace_s=grace,
        ended_at_ms=ended,
        exit_code=code,
        signal=signal,
        why=why,
        rusage=decode_rusage(rusage),
        oom=on_gpu.oom,
        usage=on_gpu.usage,
        stop_why=on_gpu.stop_why,
        leaving=on_gpu.leaving,
        paused_at_ms=on_gpu.paused_at_ms,
        paused_ms=on_gpu.paused_ms,
    )


def recall(
    db: sqlite3.Connection, interned: Interned, arrays: Arrays, jobs: Sequence[int]
) -> list[Job]:
    """The records of those of `jobs` that exist and are done, in the order of `jobs`."""
    found: dict[int, Job] = {}
    for part in chunks(jobs):
        for row in db.execute(ENDED[len(part)], part).fetchall():
            found[row[0]] = _ended(interned, row)
    for job, after in dependencies.of_jobs(db, list(found)).items():
        found[job].after = after
    dependencies.without_gone(db, arrays, [job for job in found.values() if job.after.spans])
    return [found[job] for job in jobs if job in found]


def _ended(interned: Interned, row: tuple[Any, ...]) -> Job:
    job, template, priority, submitted, left, attempt, retry_no, outcome, ended = row[:9]
    why, source, amended, array, place = row[9:]
    common = interned.template(template)[1]
    more = decode_amended(amended)
    return Job(
        id=job,
        request=more.request or common.request,
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
        source=source,
        within_s=within_s(common.time_limit_s, common.grace_s, common.linger_s),
        grown=more.request is not None,
        setbacks=more.setbacks,
        retry_args=more.retry_args,
        resume=more.resume,
        begin_ms=common.begin_ms,
        checkpoint=common.checkpoint,
        last_start_ms=last_start_ms(common.deadline_ms, common.time_limit_s),
        array=array,
        place=place or 0,
        uid=common.uid,
        belongs=keys_of(common.group, common.uid, source, common.labels, array),
    )


class SpecReader:
    """What jobs say. They start mostly in the order of their ids: after two that are close, the
    next few are read with the second."""

    def __init__(self, db: sqlite3.Connection, interned: Interned, arrays: Arrays) -> None:
        self._db = db
        self._interned = interned
        self._arrays = arrays
        self._last = 0
        self._ahead: dict[int, JobSpec] = {}

    def read(self, job: int) -> JobSpec:
        """Raises GpudError (not-found)."""
        found = self._ahead.pop(job, None)
        if found is None:
            ahead = READ_AHEAD if 0 < job - self._last <= READ_AHEAD else 0
            self._ahead = specs(self._db, self._interned, self._arrays, job, job + ahead)
            found = self._ahead.pop(job, None) or self._arrays.spec(job)
            if found is None:
                raise GpudError(f"cannot read the spec of job {job}: no such job", kind="not-found")
        self._last = job
        return found

    def forget(self, jobs: Iterable[int]) -> None:
        """They say something else now."""
        for job in jobs:
            self._ahead.pop(job, None)


def specs(
    db: sqlite3.Connection, interned: Interned, arrays: Arrays, first: int, last: int
) -> dict[int, JobSpec]:
    """Those of the jobs from `first` to `last`, as many as are READ_AHEAD_BYTES long together."""
    found: dict[int, JobSpec] = {}
    size = 0
    for job, template, command, argv, name, priority, source, entry_key, where, array in db.execute(
        SPECS, (first, last)
    ).fetchall():
        environment, common = interned.template(template)
        found[job] = JobSpec(
            element=arrays.element(array, job) if array else None,
            command=command,
            argv=decode_argv(argv),
            shell=common.shell,
            setup=common.setup,
            cwd=common.cwd,
            env=interned.environment(environment),
            umask=common.umask,
            name=name,
            request=common.request,
            priority=priority,
            retry=common.retry,
            retry_args=common.retry_args,
            time_limit_s=common.time_limit_s,
            grace_s=common.grace_s,
            linger_s=common.linger_s,
            held=common.held,
            begin_ms=common.begin_ms,
            deadline_ms=common.deadline_ms,
            checkpoint=common.checkpoint,
            uid=common.uid,
            group=common.group,
            labels=common.labels,
            source=source,
            entry_key=entry_key,
            where=where,
        )
        size += len(command)
        if size > READ_AHEAD_BYTES:
            break
    return found


def submission(db: sqlite3.Connection, key: str) -> NewSubmission | None:
    row = db.execute(
        "SELECT key, digest, first, count FROM submissions WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else NewSubmission(*row)


def position(db: sqlite3.Connection, source: str) -> str | None:
    row = db.execute("SELECT position FROM sources WHERE name = ?", (source,)).fetchone()
    return None if row is None else row[0]


def taken(db: sqlite3.Connection, source: str, generation: int) -> dict[bytes, int]:
    """How often each command was taken under an entry key "G:…" with G >= `generation`: by digest,
    which of those whose jobs are gone is all that is left."""
    parameters = {"source": source, "generation": generation}
    found = Counter(dict(db.execute(TAKEN_ONCE, parameters)))
    for command, count in db.execute(TAKEN, parameters):
        found[entry_digest(command)] += count
    return dict(found)
