"""Selectors to ids: every kind of selector is one index.

Read-only. Called by SqliteStore.select.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NoReturn

from gpud.config.belonging import uid_of
from gpud.core import indices
from gpud.core.model import JobId, JobState, Phase
from gpud.errors import GpudError
from gpud.protocol.selectors import Selection
from gpud.store.arrays import Arrays
from gpud.store.rows import by_size, chunks

HINT = "gpuctl ls --all"
GONE = "it is no longer kept ([retention] in the configuration, or gpuctl prune)"
NO_TAG = {
    "group": "no job is in this group",
    "label": "no job has this label",
    "user": "this user has no jobs",
}
OPEN_STATES = frozenset(state.value for state in JobState if state is not JobState.DONE)
PHASES = frozenset(phase.value for phase in Phase)

# The terms that look superfluous are those of the partial indices.
OPEN = "SELECT id FROM jobs WHERE state = ? AND state <> 'done'"
IN_PHASE = """SELECT id FROM jobs CROSS JOIN attempts ON job = id AND no = jobs.attempt
  WHERE state = 'active' AND state <> 'done' AND phase = ?"""
OUTCOME = "SELECT id FROM jobs WHERE outcome = ? AND state = 'done'"
DONE = "SELECT id FROM jobs WHERE state = 'done'"
NAME = "SELECT id FROM jobs WHERE name = ? AND name <> ''"
SOURCE = "SELECT id FROM jobs WHERE source = ? AND source <> ''"
TAG = "SELECT id FROM jobs WHERE template IN (SELECT template FROM tags WHERE tag = ?)"
KNOWN = by_size("SELECT id FROM jobs WHERE id IN ({})")
RANGE = "SELECT id FROM jobs WHERE id BETWEEN ? AND ?"
# An array counts as one job.
LAST = """SELECT id FROM (SELECT id FROM jobs WHERE array = 0 UNION ALL SELECT first FROM arrays)
  ORDER BY id DESC LIMIT 1 OFFSET ?"""
LAST_OF = """SELECT id FROM (
  SELECT id FROM jobs WHERE array = 0 AND template IN (SELECT template FROM tags WHERE tag = ?)
  UNION ALL
  SELECT first FROM arrays WHERE template IN (SELECT template FROM tags WHERE tag = ?))
  ORDER BY id DESC LIMIT 1 OFFSET ?"""


def select(db: sqlite3.Connection, arrays: Arrays, selection: Selection) -> list[JobId]:
    """Ids in ascending order. Raises GpudError (not-found); see ports.Store."""
    if selection.everything:
        _check_ids(db, arrays, selection.ids)
        return sorted([*_ids(db, "SELECT id FROM jobs ORDER BY id", ()), *arrays.resting()])
    found: set[JobId] = _check_ids(db, arrays, selection.ids)
    for first, low, high in selection.elements:
        found.update(_elements(db, arrays, first, low, high))
    for low, high in selection.ranges:
        part = _kept(db, arrays, low, high)
        found.update(part or _nothing(f"jobs {low}-{high}", "no such jobs"))
    for back in selection.last:
        what = f"job @~{back}" if back else "job @"
        last = _last(db, back, selection.last_of) or _nothing(
            what,
            "there are not that many jobs"
            if selection.last_of is None
            else "you have not that many jobs",
        )
        found.update(_whole(db, arrays, last[0]))
    for name in selection.names:
        part = [*_ids(db, NAME, (name,)), *arrays.resting(name=name)]
        found.update(part or _nothing(f'"name:{name}"', "no job has this name"))
    for source in selection.sources:
        part = [*_ids(db, SOURCE, (source,)), *arrays.resting(source=source)]
        found.update(part or _nothing(f'"source:{source}"', "no job came from this source"))
    for tag in selection.tags:
        meant = _meant(tag)
        part = [*_ids(db, TAG, (meant,)), *arrays.resting(tag=meant)]
        found.update(part or _nothing(f'"{tag}"', NO_TAG[tag.partition(":")[0]]))
    for state in selection.states:
        if state == JobState.DONE:
            found.update(_ids(db, DONE, ()))
        elif state in PHASES:
            found.update(_ids(db, IN_PHASE, (state,)))
        else:
            found.update(_ids(db, OPEN if state in OPEN_STATES else OUTCOME, (state,)))
            found.update(arrays.resting(state=state))
    return sorted(found)


def _last(db: sqlite3.Connection, back: int, uid: int | None) -> list[JobId]:
    if uid is None:
        return _ids(db, LAST, (back,))
    return _ids(db, LAST_OF, (f"user:{uid}", f"user:{uid}", back))


def _meant(tag: str) -> str:
    """The tag as it is stored: users by number."""
    kind, _, name = tag.partition(":")
    if kind != "user":
        return tag
    uid = uid_of(name)
    if uid is None:
        _nothing(f'"{tag}"', "this machine knows no such user")
    return f"user:{uid}"


def _check_ids(db: sqlite3.Connection, arrays: Arrays, ids: Iterable[int]) -> set[JobId]:
    """The jobs with these ids; of an array's first all of the array."""
    wanted = sorted(set(ids))
    found: set[JobId] = set()
    for part in chunks(wanted):
        found.update(_ids(db, KNOWN[len(part)], part))
    for job in wanted:
        if job not in found and arrays.of_element(job) is None:
            (next_id,) = db.execute("SELECT next_id FROM meta").fetchone()
            _nothing(f"job {job}", GONE if 0 < job < next_id else "no such job")
        found.update(_whole(db, arrays, job))
    return found


def _whole(db: sqlite3.Connection, arrays: Arrays, job: int) -> Iterable[JobId]:
    """The job, or of the array that it is the first of all that are kept."""
    last = arrays.last_of(job)
    return (JobId(job),) if last is None else _kept(db, arrays, job, last)


def _kept(db: sqlite3.Connection, arrays: Arrays, low: int, high: int) -> list[JobId]:
    return [*_ids(db, RANGE, (low, high)), *arrays.resting(within=((low, high),))]


def _elements(
    db: sqlite3.Connection, arrays: Arrays, first: int, low: int, high: int
) -> list[JobId]:
    """Those with an index from `low` to `high`."""
    what = f"job {first}[{low}]" if low == high else f"jobs {first}[{low}-{high}]"
    if arrays.last_of(first) is None:
        _nothing(what, f"job {first} is no array")
    all_ = arrays.row(JobId(first)).content.indices
    places = [indices.place_of(all_, index) for index in indices.among(all_, low, high)]
    wanted = [JobId(first + place) for place in places if place is not None]
    if not wanted:
        _nothing(what, f"the array has {indices.shown(all_)}")
    kept = {*_kept(db, arrays, min(wanted), max(wanted))}
    return [job for job in wanted if job in kept] or _nothing(what, GONE)


def _ids(db: sqlite3.Connection, query: str, parameters: Iterable[object]) -> list[JobId]:
    return [job for (job,) in db.execute(query, tuple(parameters))]


def _nothing(what: str, why: str) -> NoReturn:
    raise GpudError(f"cannot select {what}: {why}", kind="not-found", hint=HINT)
