"""Jobs as people see them: rows of `ls`, pages of `status`.

Read-only; called by SqliteStore. A page costs what it shows, whatever the length of the queue:
every query here walks an index and stops at its limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from gpud.config.requests import asked_of
from gpud.core.model import JobId, JobState, Outcome
from gpud.core.usage import mean_util
from gpud.protocol.replies import MOST_OF_COMMAND, JobView
from gpud.protocol.text import head_of
from gpud.store.codec import OnGpu, decode_lease, decode_on_gpus, show_lease
from gpud.store.intern import Interned
from gpud.store.rows import by_size, chunks

ACTIVE = JobState.ACTIVE.value
DONE = JobState.DONE.value

VIEW = by_size(
    f"""SELECT j.id, j.name, j.state, j.outcome, j.why, j.attempt, j.retries_left, j.priority,
  j.template, substr(j.command, 1, {4 * MOST_OF_COMMAND + 1}), j.source, j.origin,
  j.submitted_at_ms, j.ended_at_ms, j.not_before_ms,
  a.phase, a.exit_code, a.signal, a.started_at_ms, a.ended_at_ms, a.lease,
  CASE WHEN a.on_gpu IS NULL THEN NULL ELSE
    (SELECT json_group_array(json(on_gpu)) FROM attempts WHERE job = j.id AND on_gpu IS NOT NULL)
  END
  FROM jobs j LEFT JOIN attempts a ON a.job = j.id AND a.no = j.attempt WHERE j.id IN ({{}})"""
)
# The newest of each outcome, merged: one index serves this and `state:failed`.
RECENT = "SELECT id FROM ({}) ORDER BY ended_at_ms DESC, id DESC LIMIT :recent".format(
    " UNION ALL ".join(
        f"""SELECT * FROM (SELECT id, ended_at_ms FROM jobs WHERE state = 'done'
          AND outcome = '{outcome.value}' ORDER BY ended_at_ms DESC, id DESC LIMIT :recent)"""
        for outcome in Outcome
    )
)
RUNNING = """SELECT id FROM jobs CROSS JOIN attempts ON job = id AND no = jobs.attempt
  WHERE state = 'active' AND state <> 'done' ORDER BY dispatched_at_ms, id"""
WAITING = """SELECT id FROM jobs WHERE state = ? AND state <> 'done'
  ORDER BY not_before_ms, priority DESC, id LIMIT ?"""


def views(db: sqlite3.Connection, interned: Interned, jobs: Sequence[int]) -> list[JobView]:
    """In the order of `jobs`, without those that do not exist."""
    found: dict[int, JobView] = {}
    for part in chunks(jobs):
        for row in db.execute(VIEW[len(part)], part).fetchall():
            found[row[0]] = _view(row, interned)
    return [found[job] for job in jobs if job in found]


def _view(row: tuple[Any, ...], interned: Interned) -> JobView:
    job, name, state, outcome, why, attempt, retries_left, priority = row[:8]
    template, command, source, where, submitted, job_ended, not_before = row[8:15]
    phase, exit_code, signal, started, ended, lease, on_gpu = row[15:]
    common = interned.template(template)[1]
    gpus, vram, model, exclusive = asked_of(common.request)
    energy_j, peak_mib, util = used_of(decode_on_gpus(on_gpu))
    return JobView(
        id=job,
        name=name,
        state=state,
        phase=phase if state == ACTIVE else "",
        outcome=outcome or "",
        reason="",
        why=why if state == DONE else "",
        exit_code=exit_code,
        signal=signal,
        attempt=attempt,
        retries_left=retries_left,
        priority=priority,
        gpus=gpus,
        lease=show_lease(decode_lease(lease)) if lease else (),
        command=head_of(command, MOST_OF_COMMAND),
        source=source,
        where=where,
        submitted_at_ms=submitted,
        started_at_ms=started or 0,
        ended_at_ms=(job_ended if state == DONE else ended) or 0,
        not_before_ms=not_before,
        vram_mib=vram,
        gpu_model=model,
        exclusive=exclusive,
        energy_j=energy_j,
        peak_vram_mib=peak_mib,
        gpu_util=util,
        group=common.group,
        labels=dict(label.split("=", 1) for label in common.labels),
    )


def used_of(attempts: Sequence[OnGpu]) -> tuple[float | None, int | None, int | None]:
    """(joules of all, MiB of the one that took most, per cent of the last); None: nobody looked."""
    used = [attempt.usage for attempt in attempts if attempt.usage and attempt.usage.at_ms]
    if not used:
        return None, None, None
    energy = sum(usage.energy_mj for usage in used) / 1000
    measured = any(usage.counters for usage in used)
    peak = max(usage.peak_mib for usage in used)
    return energy if measured else None, peak or None, mean_util(used[-1])


def page(db: sqlite3.Connection, recent: int, limit: int) -> tuple[list[JobId], list[JobId]]:
    """The last `recent` ended ones, oldest first; and at most `limit` (0: all) of those that are
    not done: active, queued, held."""
    ended = [job for (job,) in db.execute(RECENT, {"recent": recent})]
    shown: list[JobId] = [job for (job,) in db.execute(RUNNING)]
    if limit:
        shown = shown[:limit]
    for state in (JobState.QUEUED, JobState.HELD):
        room = limit - len(shown) if limit else -1
        shown += [job for (job,) in db.execute(WAITING, (state.value, room))]
    return ended[::-1], shown
