"""One job in full, and the events: stories and what followers read.

Read-only. Called by SqliteStore.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from msgspec import structs

from gpud.config.requests import ends_of
from gpud.core import indices
from gpud.core.likeness import likeness_of
from gpud.core.model import After, JobId
from gpud.core.spans import count, spans_of
from gpud.paths import log_path
from gpud.protocol.replies import ArrayView, AttemptView, EventView, JobDetail, JobView
from gpud.protocol.text import to_text
from gpud.store import dependencies
from gpud.store.arrays import Arrays
from gpud.store.codec import (
    decode_amended,
    decode_detail,
    decode_lease,
    decode_on_gpu,
    decode_rusage,
    env_names,
    show_lease,
)
from gpud.store.loading import SpecReader
from gpud.store.pruning import LOGS_OF
from gpud.store.viewing import used_of

ATTEMPTS = """SELECT no, phase, outcome, exit_code, signal, why, pid, dispatched_at_ms,
  started_at_ms, ended_at_ms, rusage, lease, on_gpu FROM attempts WHERE job = ? ORDER BY no"""
COUNTS = "SELECT coalesce(outcome, state), count(*) FROM jobs WHERE id BETWEEN ? AND ? GROUP BY 1"
BAD_ONES = """SELECT id FROM jobs WHERE id BETWEEN ? AND ? AND state = 'done'
  AND outcome NOT IN ('succeeded', 'cancelled') ORDER BY id LIMIT ?"""
MOST_BAD = 1000  # elements that are named
EVENT = "SELECT seq, at_ms, job, attempt, kind, detail, count FROM events"
STORY = f"""{EVENT} WHERE job = ? AND count = 1 UNION ALL
  {EVENT} INDEXED BY events_of_many
  WHERE job <= ? AND job + count > ? AND count > 1 ORDER BY 1"""
AFTER = f"{EVENT} WHERE seq > ? ORDER BY seq LIMIT ?"


def detail(db: sqlite3.Connection, specs: SpecReader, state_dir: Path, job: JobView) -> JobDetail:
    s = specs.read(JobId(job.id))
    row = db.execute("SELECT amended FROM jobs WHERE id = ?", (job.id,)).fetchone()
    args = decode_amended(row[0]).retry_args if row else None
    after = dependencies.of_jobs(db, [job.id]).get(JobId(job.id), s.after)
    return JobDetail(
        job=structs.replace(job, command=to_text(s.command)),  # all of it
        argv=None if s.argv is None else tuple(to_text(word) for word in s.argv),
        shell=tuple(to_text(word) for word in s.shell),
        setup=to_text(s.setup),
        cwd=to_text(s.cwd),
        env_names=tuple(to_text(name) for name in env_names(s.env)),
        retries=s.retry.retries,
        backoff_s=s.retry.backoff_s,
        backoff_max_s=s.retry.backoff_max_s,
        retry_args=to_text(s.retry_args if args is None else args),
        time_limit_s=s.time_limit_s,
        grace_s=s.grace_s,
        linger_s=s.linger_s,
        uid=s.uid,
        attempts=_attempts(db, state_dir, job.id),
        story=tuple(_event(row) for row in db.execute(STORY, (job.id,) * 3)),
        retry_on=ends_of(s.retry),
        usual_vram_mib=_usual(db, likeness_of(s.name, s.command, s.uid)),
        after=_spans(after, ended=False),
        after_any=_spans(after, ended=True),
        after_failed="wait" if after.patient else "cancel",
        begin_ms=s.begin_ms,
        deadline_ms=s.deadline_ms,
    )


def array(db: sqlite3.Connection, arrays: Arrays, first: JobId, example: JobDetail) -> ArrayView:
    row = arrays.row(first)
    counts = dict(db.execute(COUNTS, (first, row.last)).fetchall())
    if (rest := arrays.rest.get(first)) is not None:
        counts[rest.state] = counts.get(rest.state, 0) + count(rest.ids)
    places = spans_of(job - first for (job,) in db.execute(BAD_ONES, (first, row.last, MOST_BAD)))
    content = row.content
    return ArrayView(
        array=first,
        size=row.last - first + 1,
        indices=indices.shown(content.indices),
        counts=counts,
        example=example,
        at_most=content.at_most,
        max_fails=content.max_fails,
        bad=",".join(indices.shown(indices.part(content.indices, *span)) for span in places),
    )


def _spans(after: After, *, ended: bool) -> tuple[str, ...]:
    found = [span for span in after.spans if span.ended == ended]
    return tuple(str(s.first) if s.first == s.last else f"{s.first}-{s.last}" for s in found)


def _usual(db: sqlite3.Connection, likeness: str) -> int | None:
    row = db.execute("SELECT mib FROM usual_memory WHERE likeness = ?", (likeness,)).fetchone()
    return None if row is None else row[0]


def events_after(db: sqlite3.Connection, seq: int, limit: int) -> list[EventView]:
    return [_event(row) for row in db.execute(AFTER, (seq, limit))]


def _attempts(db: sqlite3.Connection, state_dir: Path, job: int) -> tuple[AttemptView, ...]:
    logs = {no: rest for no, *rest in db.execute(LOGS_OF, (job,))}
    found = []
    for row in db.execute(ATTEMPTS, (job,)):
        view = _attempt(state_dir, job, row)
        if (log := logs.get(view.attempt)) is not None:
            gone_at_ms, first, end = log
            cut = (first, end) if end > 0 else None
            view = structs.replace(view, log_gone_at_ms=gone_at_ms, log_cut=cut)
        found.append(view)
    return tuple(found)


def _attempt(state_dir: Path, job: int, row: tuple[Any, ...]) -> AttemptView:
    no, phase, outcome, code, signal, why, pid, dispatched, started, ended = row[:10]
    column, lease, seen = row[10:]
    rusage, on_gpu = decode_rusage(column), decode_on_gpu(seen)
    energy_j, peak_mib, util = used_of([on_gpu])
    return AttemptView(
        attempt=no,
        phase="" if outcome else phase,
        outcome=outcome or "",
        exit_code=code,
        signal=signal,
        why=why,
        lease=show_lease(decode_lease(lease)),
        pid=pid,
        dispatched_at_ms=dispatched,
        started_at_ms=started,
        ended_at_ms=ended,
        user_s=rusage.user_s if rusage else None,
        system_s=rusage.system_s if rusage else None,
        max_rss_kib=rusage.max_rss_kib if rusage else None,
        log=log_path(state_dir, job, no),
        oom=on_gpu.oom,
        energy_j=energy_j,
        peak_vram_mib=peak_mib,
        gpu_util=util,
    )


def _event(row: tuple[Any, ...]) -> EventView:
    seq, at_ms, job, attempt, kind, detail_, count = row
    return EventView(seq, at_ms, job, attempt, kind, decode_detail(detail_), count)
