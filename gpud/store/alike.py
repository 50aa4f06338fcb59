"""How long jobs have run that are alike: of one person, under one name, or of one array.

Read-only; called by SqliteStore for forecasts. What is asked of a name looks at its LOOKED_AT jobs
just before another, however many there are: who is done stands before who runs, as a rule.
"""

from __future__ import annotations

import sqlite3

from gpud.core.model import JobId, Outcome
from gpud.ports import Likeness
from gpud.store.arrays import Arrays
from gpud.store.codec import decode_on_gpu
from gpud.store.intern import Interned

LOOKED_AT = 200
ENOUGH = 20

ONE = "SELECT template, name, array FROM jobs WHERE id = ?"
OF_NAME = "name = :name AND name <> ''"
OF_ARRAY = "id >= :array"
RUNS = f"""SELECT template, a.ended_at_ms - a.started_at_ms, a.on_gpu FROM
  (SELECT id, attempt, template, array FROM jobs WHERE {{}} AND id < :before
    ORDER BY id DESC LIMIT {LOOKED_AT})
  CROSS JOIN attempts a ON a.job = id AND a.no = attempt
  WHERE a.outcome = '{Outcome.SUCCEEDED.value}' AND a.started_at_ms > 0
    AND (:array = 0 OR array = :array)
  ORDER BY id DESC"""


def likeness(
    db: sqlite3.Connection, interned: Interned, arrays: Arrays, job: JobId
) -> Likeness | None:
    if (first := arrays.of_element(job)) is not None:
        row = arrays.row(first)
        template, name, array = row.template, row.name, int(first)
    elif (found := db.execute(ONE, (job,)).fetchone()) is not None:
        template, name, array = found
    else:
        return None
    if name:
        return Likeness(uid=interned.template(template)[1].uid, name=name)
    return Likeness(array=array) if array else None


def runs_ms(
    db: sqlite3.Connection, interned: Interned, alike: Likeness, before: JobId
) -> list[int]:
    query = RUNS.format(OF_NAME if alike.name else OF_ARRAY)
    known = {"name": alike.name, "array": alike.array, "before": before}
    found = [
        ms - decode_on_gpu(on_gpu).paused_ms
        for template, ms, on_gpu in db.execute(query, known).fetchall()
        if not alike.name or interned.template(template)[1].uid == alike.uid
    ]
    return found[:ENOUGH]
