"""Forgetting: done jobs with all that is theirs, and what became of logs.

Owns DELETE FROM jobs, and the tables `past_entries` and `logs`. Called by SqliteStore, for the
daemon's housekeeping, between two turns of the engine. Each method is one short transaction.

Rule 1: that the log of an attempt is to go is committed first (`due`), with the job's end or
without it; then the file is removed; then that is committed, too. A crash anywhere in between
leaves what the next daemon finishes: no file without a job stays for ever, and no job claims a log
that is gone.
Rule 2: an entry of a source stays known when its job goes: its key, and the digest of its command.
Rule 3: elements of an array go only once all of them have rows (an element without one would come
back to life), and the first one with the last of the others: it is the array's name.
Rule 4: what is remembered beside the database changes only after COMMIT has returned.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import merge
from itertools import islice

from gpud.core.entries import entry_digest
from gpud.core.model import JobId, Outcome
from gpud.core.retention import Ended
from gpud.core.rules import ARRAY
from gpud.ports import LogFile
from gpud.store.arrays import Arrays
from gpud.store.gating import Groups
from gpud.store.intern import Interned
from gpud.store.rows import by_size, chunks
from gpud.store.tally import Kind, Tally, kind_of

ENDED = """SELECT ended_at_ms, id FROM jobs WHERE state = 'done' AND outcome = ?
  AND (ended_at_ms, id) > (?, ?) ORDER BY ended_at_ms, id LIMIT ?"""
ENDED_OF = by_size("SELECT ended_at_ms, id FROM jobs WHERE state = 'done' AND id IN ({})")
DONE = by_size(
    """SELECT id, array, template, outcome, source, entry_key, ifnull(entry_command, command)
      FROM jobs WHERE state = 'done' AND id IN ({})"""
)
OTHERS = "SELECT id FROM jobs WHERE id BETWEEN ? AND ? LIMIT 1"
LOGS_DUE = """INSERT INTO logs (job, no, gone_at_ms, due) SELECT job, no, ?, 1 FROM attempts
  WHERE job = ? ON CONFLICT (job, no) DO UPDATE SET due = 1, gone_at_ms = excluded.gone_at_ms
  WHERE gone_at_ms = 0"""
FORGET_GONE = "DELETE FROM logs WHERE job = ? AND NOT due"
REMOVED = "UPDATE logs SET due = 0 WHERE job = ? AND no = ?"
FORGOTTEN = """DELETE FROM logs WHERE job = ? AND no = ?
  AND NOT EXISTS (SELECT 1 FROM jobs WHERE id = job)"""
KEEP_ENTRY = "INSERT INTO past_entries (source, entry_key, digest) VALUES (?,?,?)"
LOGS_OF = "SELECT no, gone_at_ms, cut_first, cut_end FROM logs WHERE job = ?"
# The last word counts.
CUT = """INSERT INTO logs (job, no, cut_first, cut_end) VALUES (?,?,?,?) ON CONFLICT (job, no)
  DO UPDATE SET cut_first = excluded.cut_first, cut_end = excluded.cut_end"""


class Pruning:
    def __init__(
        self,
        db: sqlite3.Connection,
        interned: Interned,
        arrays: Arrays,
        tally: Tally,
        groups: Groups,
    ) -> None:
        self._db = db
        self._interned = interned
        self._arrays = arrays
        self._tally = tally
        self._groups = groups

    # -- reading ---------------------------------------------------------------------------------

    def ended(self, after: tuple[int, int], limit: int) -> list[Ended]:
        """See ports.Store."""
        each = [
            self._db.execute(ENDED, (outcome.value, *after, limit)).fetchall()
            for outcome in Outcome
        ]
        return [Ended(*row) for row in islice(merge(*each), limit)]

    def ended_of(self, jobs: Sequence[JobId]) -> list[Ended]:
        found = {
            row for part in chunks(jobs) for row in self._db.execute(ENDED_OF[len(part)], part)
        }
        return [Ended(*row) for row in found]

    def logs_due(self, limit: int) -> list[LogFile]:
        rows = self._db.execute("SELECT job, no FROM logs WHERE due LIMIT ?", (limit,))
        return [LogFile(*row) for row in rows]

    # -- writing: in the caller's transaction ----------------------------------------------------

    def prune(self, jobs: Sequence[JobId], at_ms: int) -> tuple[JobId, ...]:
        """Those of `jobs` that went; BEGIN and COMMIT are in here."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        rows = [row for part in chunks(jobs) for row in db.execute(DONE[len(part)], part)]
        rows = sorted({row[0]: row for row in rows}.values(), reverse=True)  # first ones last
        gone, arrays = [], []
        moved: dict[Kind, int] = {}
        of_groups: Counter[tuple[int, str]] = Counter()
        for job, array, template, outcome, source, entry_key, command in rows:
            if array and (array in self._arrays.rest or not self._may_go(job, array)):
                continue
            db.execute(FORGET_GONE, (job,))
            db.execute(LOGS_DUE, (at_ms, job))
            db.execute("DELETE FROM events WHERE job = ? AND count = 1", (job,))
            db.execute("DELETE FROM jobs WHERE id = ?", (job,))
            if source and entry_key is not None:
                db.execute(KEEP_ENTRY, (source, entry_key, entry_digest(command)))
            if job == array:
                self._forget_array(job)
                arrays.append(job)
            kind = kind_of("done", outcome, source)
            moved[kind] = moved.get(kind, 0) - 1
            of_groups[template, outcome] += 1
            gone.append(JobId(job))
        db.execute("COMMIT")
        self._tally.move(moved, {})
        self._groups.forget(of_groups, self._interned)
        if arrays:
            self._arrays.forget()
        return tuple(gone)

    def _may_go(self, job: int, array: int) -> bool:
        """The first element only when it is the last one left."""
        if job != array:
            return True
        last = self._arrays.last_of(array) or array
        return self._db.execute(OTHERS, (array + 1, last)).fetchone() is None

    def _forget_array(self, first: int) -> None:
        row = self._db.execute(
            "SELECT source, entry_key, command FROM arrays WHERE first = ?", (first,)
        ).fetchone()
        source, entry_key, command = row
        if source and entry_key is not None:
            self._db.execute(KEEP_ENTRY, (source, entry_key, entry_digest(command)))
        self._db.execute("DELETE FROM arrays WHERE first = ?", (first,))
        self._db.execute("DELETE FROM gates WHERE key = ?", (f"{ARRAY}{first}",))

    def prune_logs(self, jobs: Iterable[JobId], at_ms: int) -> None:
        """The logs of these done jobs are to go; the jobs stay."""
        self._db.execute("BEGIN IMMEDIATE")
        done = "SELECT 1 FROM jobs WHERE id = ? AND state = 'done'"
        for job in jobs:
            if self._db.execute(done, (job,)).fetchone():
                self._db.execute(LOGS_DUE, (at_ms, job))
        self._db.execute("COMMIT")

    def logs_removed(self, files: Sequence[LogFile]) -> None:
        """Their files are gone."""
        keys = [(file.job, file.attempt) for file in files]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(REMOVED, keys)
        self._db.executemany(FORGOTTEN, keys)
        self._db.execute("COMMIT")

    def cut(self, file: LogFile, first: int, end: int) -> None:
        self._db.execute(CUT, (file.job, file.attempt, first, end))
