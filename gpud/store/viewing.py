"""Jobs as people see them: rows of `ls`, pages of `status`.

Read-only; called by SqliteStore. A page costs what it shows, whatever the length of the queue:
every query here walks an index and stops at its limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Any

from gpud.config.requests import asked_of
from gpud.core import indices
from gpud.core.model import Indices, JobId, JobState, Outcome, Phase
from gpud.core.spans import Spans, count
from gpud.core.usage import mean_util
from gpud.protocol.replies import MOST_OF_COMMAND, JobView
from gpud.protocol.text import head_of
from gpud.signals import signal_name
from gpud.store.arrays import Arrays
from gpud.store.codec import OnGpu, decode_lease, decode_on_gpus, show_lease
from gpud.store.intern import Interned
from gpud.store.rows import by_size, chunks

ACTIVE = JobState.ACTIVE.value
DONE = JobState.DONE.value
PAUSED = Phase.PAUSED.value

VIEW = by_size(
    f"""SELECT j.id, j.name, j.state, j.outcome, j.why, j.attempt, j.retries_left, j.priority,
  j.template, substr(j.command, 1, {4 * MOST_OF_COMMAND + 1}), j.source, j.origin,
  j.submitted_at_ms, j.ended_at_ms, j.not_before_ms,
  a.phase, a.exit_code, a.signal, a.started_at_ms, a.ended_at_ms, a.lease,
  CASE WHEN a.on_gpu IS NULL THEN NULL ELSE
    (SELECT json_group_array(json(on_gpu)) FROM attempts WHERE job = j.id AND on_gpu IS NOT NULL)
  END, j.array
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
WAITING = """SELECT not_before_ms, -priority, ifnull(place, id), id FROM jobs
  WHERE state = ? AND state <> 'done'
  ORDER BY not_before_ms, priority DESC, ifnull(place, id), id LIMIT ?"""


def views(
    db: sqlite3.Connection, interned: Interned, arrays: Arrays, jobs: Sequence[JobId | Spans]
) -> list[JobView]:
    """In the order of `jobs`, without those that do not exist. Elements of one array that have no
    row, as spans, have one view."""
    found: dict[int, JobView] = {}
    for part in chunks([job for job in jobs if isinstance(job, int)]):
        for row in db.execute(VIEW[len(part)], part).fetchall():
            found[row[0]] = _view(row, interned, arrays)
    shown = []
    for job in jobs:
        if not isinstance(job, int):
            shown.append(_unchanged(job, interned, arrays))
        elif (view := found.get(job)) is not None:
            shown.append(view)
        elif arrays.of_element(job) is not None:
            shown.append(_unchanged(((job, job),), interned, arrays))
    return shown


def _unchanged(ids: Spans, interned: Interned, arrays: Arrays) -> JobView:
    """Elements of an array that are as they were submitted."""
    first = arrays.of_element(ids[0][0])
    assert first is not None
    row, rest = arrays.row(first), arrays.rest[first]
    common = interned.template(row.template)[1]
    gpus, vram, model, exclusive = asked_of(common.request)
    return JobView(
        id=ids[0][0],
        name=row.name,
        state=rest.state,
        phase="",
        outcome="",
        reason="",
        why="",
        exit_code=None,
        signal=None,
        attempt=0,
        retries_left=row.retries_left,
        priority=row.priority,
        gpus=gpus,
        lease=(),
        command=head_of(row.command[: 4 * MOST_OF_COMMAND + 1], MOST_OF_COMMAND),
        source=row.source,
        where=row.origin,
        submitted_at_ms=row.submitted_at_ms,
        started_at_ms=0,
        ended_at_ms=0,
        not_before_ms=0,
        vram_mib=vram,
        gpu_model=model,
        exclusive=exclusive,
        checkpoint=signal_name(common.checkpoint) if common.checkpoint else "",
        array=first,
        indices=_some(row.content.indices, ids, first),
        count=count(ids),
        ids=ids,
    )


def _some(all_: Indices, ids: Spans, first: int) -> str:
    parts = (indices.part(all_, low - first, high - first) for low, high in ids)
    return ",".join(map(indices.shown, parts))


def _view(row: tuple[Any, ...], interned: Interned, arrays: Arrays) -> JobView:
    job, name, state, outcome, why, attempt, retries_left, priority = row[:8]
    template, command, source, where, submitted, job_ended, not_before = row[8:15]
    phase, exit_code, signal, started, ended, lease, on_gpu, array = row[15:]
    common = interned.template(template)[1]
    gpus, vram, model, exclusive = asked_of(common.request)
    seen = decode_on_gpus(on_gpu)
    energy_j, peak_mib, util = used_of(seen)
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
        checkpoint=signal_name(common.checkpoint) if common.checkpoint else "",
        paused_at_ms=seen[-1].paused_at_ms if state == ACTIVE and phase == PAUSED else 0,
        array=array,
        indices=str(arrays.element(array, job).index) if array else "",
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


def page(
    db: sqlite3.Connection, arrays: Arrays, recent: int, limit: int
) -> tuple[list[JobId], list[JobId | Spans]]:
    """The last `recent` ended ones, oldest first; and at most `limit` (0: all) of those that are
    not done: active, queued, held. Elements of one array that have no row are one entry."""
    ended = [job for (job,) in db.execute(RECENT, {"recent": recent})]
    shown: list[JobId | Spans] = [job for (job,) in db.execute(RUNNING)]
    if limit:
        shown = shown[:limit]
    for state in (JobState.QUEUED, JobState.HELD):
        room = limit - len(shown) if limit else -1
        waiting = [(row, row[-1]) for row in db.execute(WAITING, (state.value, room))]
        unchanged = sorted(
            ((0, -row.priority, row.place or rest.ids[0][0], -row.first), rest.ids)
            for row, rest in ((arrays.row(first), rest) for first, rest in arrays.rest.items())
            if rest.state == state
        )
        rows = merge(waiting, unchanged, key=itemgetter(0))
        shown += [entry for _, entry in islice(rows, room if limit else None)]
    return ended[::-1], shown
