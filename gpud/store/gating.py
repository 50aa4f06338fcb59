"""What people said of gates, what users have had, and how many jobs of each group there are.

Called by store/commit.py inside its transaction, by store/loading.py, and by SqliteStore.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from msgspec.structs import astuple

from gpud.core.changes import Changes
from gpud.core.model import Job, JobState, Outcome
from gpud.core.rules import GROUP, Kept
from gpud.core.shares import Sum

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
    """How many jobs of each group there are, per state and outcome: counted when somebody asks for
    the first time, then moved along with each transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._counts: Counter[tuple[str, str]] | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        if self._counts is None:
            self._counts = Counter()
            for tag, word, count in self._db.execute(COUNT):
                self._counts[tag, word] = count
        found: dict[str, dict[str, int]] = {}
        for (tag, word), count in sorted(self._counts.items()):
            if count:
                found.setdefault(tag.removeprefix(GROUP), {})[word] = count
        return found

    def move(self, changes: Changes) -> None:
        """What a committed transaction changed."""
        if self._counts is None:
            return
        new = {job for job, _ in changes.new}
        for job_id, job in changes.jobs.items():
            group = group_of(job)
            if not group or (job_id not in new and job_id not in changes.before):
                continue
            self._counts[group, word_of(job.state, job.outcome)] += 1
            if job_id not in new:
                self._counts[group, word_of(*changes.before[job_id])] -= 1


def group_of(job: Job) -> str:
    """Its key; "" when it is in none."""
    return next((key for key in job.belongs if key.startswith(GROUP)), "")


def word_of(state: JobState, outcome: Outcome | None) -> str:
    return (outcome or state).value
