"""Whose jobs these are, and who asked for what: the table `audit`.

`write_audit` is called by store/commit.py inside its transaction; the rest reads, for SqliteStore.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from gpud.core.changes import Audit
from gpud.core.model import JobId
from gpud.protocol.replies import AuditView
from gpud.store.arrays import Arrays
from gpud.store.intern import Interned
from gpud.store.rows import by_size, chunks

TEMPLATES = by_size("SELECT id, template FROM jobs WHERE id IN ({})")
INSERT = "INSERT INTO audit (at_ms, first, last, verb, uid, pid) VALUES (?,?,?,?,?,?)"
OF_JOB = """SELECT seq, at_ms, verb, uid, pid FROM audit WHERE first = ? AND first = last
  UNION ALL
  SELECT seq, at_ms, verb, uid, pid FROM audit
  WHERE first <= ? AND last >= ? AND first <> last ORDER BY 1"""


def owners(
    db: sqlite3.Connection, interned: Interned, arrays: Arrays, jobs: Sequence[int]
) -> dict[int, int]:
    """The uid of each of those that exist."""
    found: dict[int, int] = {}
    for part in chunks(jobs):
        for job, template in db.execute(TEMPLATES[len(part)], part).fetchall():
            found[job] = interned.template(template)[1].uid
    for job in jobs:
        if job not in found and (first := arrays.of_element(job)) is not None:
            found[job] = interned.template(arrays.row(first).template)[1].uid
    return found


def audit(db: sqlite3.Connection, job: JobId) -> list[AuditView]:
    rows = db.execute(OF_JOB, (job, job, job)).fetchall()
    return [AuditView(at_ms, verb, uid, pid) for _, at_ms, verb, uid, pid in rows]


def write_audit(db: sqlite3.Connection, audits: Iterable[Audit]) -> None:
    rows = [
        (one.at_ms, first, last, one.by.verb, one.by.uid, one.by.pid)
        for one in audits
        for first, last in one.jobs or ((0, 0),)
    ]
    db.executemany(INSERT, rows)
