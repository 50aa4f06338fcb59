"""How long jobs that are alike have run: of one person, under one name.

Read-only; called by SqliteStore for forecasts. What is asked of a name looks at its LOOKED_AT jobs
just before another, however many there are: who is done stands before who runs, as a rule.
"""

from __future__ import annotations

import sqlite3

from gpud.core.model import JobId, Outcome
from gpud.store.intern import Interned

LOOKED_AT = 200
ENOUGH = 20

ONE = "SELECT name, template FROM jobs WHERE id = ? AND name <> ''"
RUNS = f"""SELECT template, a.ended_at_ms - a.started_at_ms FROM
  (SELECT id, attempt, template FROM jobs WHERE name = ? AND name <> '' AND id < ?
    ORDER BY id DESC LIMIT {LOOKED_AT})
  CROSS JOIN attempts a ON a.job = id AND a.no = attempt
  WHERE a.outcome = '{Outcome.SUCCEEDED.value}' AND a.started_at_ms > 0
  ORDER BY id DESC"""


def likeness(db: sqlite3.Connection, interned: Interned, job: JobId) -> tuple[int, str] | None:
    """What is said of alike jobs; None where there is nothing to say."""
    found = db.execute(ONE, (job,)).fetchone()
    return (interned.template(found[1])[1].uid, found[0]) if found is not None else None


def runs_ms(
    db: sqlite3.Connection, interned: Interned, alike: tuple[int, str], before: JobId
) -> list[int]:
    """Of the last attempts that succeeded, the newest first."""
    uid, name = alike
    rows = db.execute(RUNS, (name, before)).fetchall()
    found = [ms for template, ms in rows if interned.template(template)[1].uid == uid]
    return found[:ENOUGH]
