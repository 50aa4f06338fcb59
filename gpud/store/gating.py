"""What people said of gates, what users have had, and how many jobs of each group there are.

Called by store/commit.py inside its transaction, by store/loading.py, and by SqliteStore.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from msgspec.structs import astuple

from gpud.core import spans
from gpud.core.changes import Changes
from gpud.core.model import JobId, JobState, Outcome
from gpud.core.rules import GROUP, Kept
from gpud.core.shares import Sum
from gpud.store.arrays import Arrays
from gpud.store.intern import Interned, tags_of

SET_GATE = """INSERT INTO gates (key, run_limit, max_fails, fails) VALUES (?, ?, ?, ?)
  ON CONFLICT (key) DO UPDATE SET run_limit = excluded.run_limit,
  max_fails = excluded.max_fails, fails = excluded.fails"""
SET_USAGE = """INSERT INTO gpu_usage (uid, used_s, at_ms) VALUES (?, ?, ?)
  ON CONFLICT (uid) DO UPDATE SET used_s = excluded.used_s, at_ms = excluded.at_ms"""
# The character after a colon is a semicolon.
COUNT = """SELECT tag, coalesce(outcome, state), count(*) FROM tags CROSS JOIN jobs
  ON jobs.template = tags.template WHERE tag >= 'group:' AND tag < 'group;'
  GROUP BY tag, state, outcome"""


def write(db: sqlite3.Connection, changes: Changes) -> None:
    for key, kept_ in changes.gates.items():
        if kept_:
            db.execute(SET_GATE, (key, *astuple(kept_)))
        else:
            db.execute("DELETE FROM gates WHERE key = ?", (key,))
    for uid, used in changes.usage.items():
        if used is not None:
            db.execute(SET_USAGE, (uid, *used))
        else:
            db.execute("DELETE FROM gpu_usage WHERE uid = ?", (uid,))


def kept(db: sqlite3.Connection) -> dict[str, Kept]:
    rows = db.execute("SELECT key, run_limit, max_fails, fails FROM gates")
    return {key: Kept(*row) for key, *row in rows}


def usage(db: sqlite3.Connection) -> dict[int, Sum]:
    rows = db.execute("SELECT uid, used_s, at_ms FROM gpu_usage")
    return {uid: (used_s, at_ms) for uid, used_s, at_ms in rows}


class Groups:
    """How many jobs of each group there are, per state and outcome: rows are counted when somebody
    asks for the first time, then moved along with each transaction; elements of arrays that have no
    row are added."""

    def __init__(self, db: sqlite3.Connection, arrays: Arrays) -> None:
        self._db = db
        self._arrays = arrays
        self._counts: Counter[tuple[str, str]] | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        if self._counts is None:
            self._counts = Counter()
            for tag, word, count in self._db.execute(COUNT):
                self._counts[tag, word] = count
        total = self._counts.copy()
        for first, rest in self._arrays.rest.items():
            total[group_of(self._arrays.tags(first)), rest.state] += spans.count(rest.ids)
        found: dict[str, dict[str, int]] = {}
        for (tag, word), count in sorted(total.items()):
            if tag and count:
                found.setdefault(tag.removeprefix(GROUP), {})[word] = count
        return found

    def move(self, changes: Changes, elements: Collection[JobId]) -> None:
        """What a committed transaction changed; these elements of arrays have got a row."""
        if self._counts is None:
            return
        if changes.edited:  # of which group they were is not known here
            self._counts = None
            return
        new = {job for job, _ in changes.new} | {*elements}
        for job_id, job in changes.jobs.items():
            group = group_of(job.belongs)
            if job_id < 0 or not group or (job_id not in new and job_id not in changes.before):
                continue
            self._counts[group, word_of(job.state, job.outcome)] += 1
            if job_id not in new:
                self._counts[group, word_of(*changes.before[job_id])] -= 1
        for end in changes.ends:
            group = group_of(self._arrays.tags(end.array))
            self._counts[group, end.outcome.value] += end.last - end.first + 1

    def forget(self, gone: Mapping[tuple[int, str], int], interned: Interned) -> None:
        """So many done jobs with these templates and outcomes are no longer kept."""
        if self._counts is None:
            return
        for (template, outcome), count in gone.items():
            group = group_of(tags_of(interned.template(template)[1]))
            if group:
                self._counts[group, outcome] -= count


def group_of(keys: Iterable[str]) -> str:
    """The one of a group; "" when there is none."""
    return next((key for key in keys if key.startswith(GROUP)), "")


def word_of(state: JobState, outcome: Outcome | None) -> str:
    return (outcome or state).value
