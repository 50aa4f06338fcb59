"""Selectors to ids: every kind of selector is one index.

Read-only. Called by SqliteStore.select.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NoReturn

from gpud.config.belonging import uid_of
from gpud.core.model import JobId, JobState, Phase
from gpud.errors import GpudError
from gpud.protocol.selectors import Selection
from gpud.store.rows import by_size, chunks

HINT = "gpuctl ls --all"
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
LAST = "SELECT id FROM jobs ORDER BY id DESC LIMIT 1 OFFSET ?"


def select(db: sqlite3.Connection, selection: Selection) -> list[JobId]:
    """Ids in ascending order. Raises GpudError (not-found); see ports.Store."""
    if selection.everything:
        _check_ids(db, selection.ids)
        return _ids(db, "SELECT id FROM jobs ORDER BY id", ())
    found: set[JobId] = _check_ids(db, selection.ids)
    for low, high in selection.ranges:
        part = _ids(db, RANGE, (low, high))
        found.update(part or _nothing(f"jobs {low}-{high}", "no such jobs"))
    for back in selection.last:
        what = f"job @~{back}" if back else "job @"
        found.update(_ids(db, LAST, (back,)) or _nothing(what, "there are not that many jobs"))
    for name in selection.names:
        part = _ids(db, NAME, (name,))
        found.update(part or _nothing(f'"name:{name}"', "no job has this name"))
    for source in selection.sources:
        part = _ids(db, SOURCE, (source,))
        found.update(part or _nothing(f'"source:{source}"', "no job came from this source"))
    for tag in selection.tags:
        part = _ids(db, TAG, (_meant(tag),))
        found.update(part or _nothing(f'"{tag}"', NO_TAG[tag.partition(":")[0]]))
    for state in selection.states:
        if state == JobState.DONE:
            found.update(_ids(db, DONE, ()))
        elif state in PHASES:
            found.update(_ids(db, IN_PHASE, (state,)))
        else:
            found.update(_ids(db, OPEN if state in OPEN_STATES else OUTCOME, (state,)))
    return sorted(found)


def _meant(tag: str) -> str:
    """The tag as it is stored: users by number."""
    kind, _, name = tag.partition(":")
    if kind != "user":
        return tag
    uid = uid_of(name)
    if uid is None:
        _nothing(f'"{tag}"', "this machine knows no such user")
    return f"user:{uid}"


def _check_ids(db: sqlite3.Connection, ids: Iterable[int]) -> set[JobId]:
    wanted = sorted(set(ids))
    found: set[JobId] = set()
    for part in chunks(wanted):
        found.update(_ids(db, KNOWN[len(part)], part))
    if len(found) < len(wanted):
        missing = next(job for job in wanted if job not in found)
        _nothing(f"job {missing}", "no such job")
    return found


def _ids(db: sqlite3.Connection, query: str, parameters: Iterable[object]) -> list[JobId]:
    return [job for (job,) in db.execute(query, tuple(parameters))]


def _nothing(what: str, why: str) -> NoReturn:
    raise GpudError(f"cannot select {what}: {why}", kind="not-found", hint=HINT)
