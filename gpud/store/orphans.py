"""What no job refers to any more, once jobs are gone: keys of submits, stories of many jobs,
templates, environments, and the story of gpud itself from before the oldest job.

Called by SqliteStore, for the daemon's housekeeping. There is no index from a job to these (it
would be one more page to write at every submit), so the tables are walked: a stretch of STRETCH
rows is one short transaction. The newest event stays (store/schema.py, rule 4).
"""

from __future__ import annotations

import sqlite3
from typing import Any

from msgspec import Struct

from gpud.store.intern import Interned

STRETCH = 500

# Each has the end of the next stretch after a key, and what is deleted in it.
NO_JOBS = """NOT EXISTS (SELECT 1 FROM jobs WHERE id BETWEEN {0} AND {0} + count - 1)
  AND NOT EXISTS (SELECT 1 FROM arrays WHERE arrays.first BETWEEN {0} AND {0} + count - 1)"""
SUBMISSIONS = (
    "SELECT key FROM submissions WHERE key > ? ORDER BY key LIMIT ?",
    "DELETE FROM submissions WHERE key > ? AND key <= ? AND " + NO_JOBS.format("submissions.first"),
)
STORIES = (
    "SELECT job FROM events WHERE count > 1 AND job > ? ORDER BY job LIMIT ?",
    """DELETE FROM events WHERE count > 1 AND job > ? AND job <= ?
      AND seq < (SELECT max(seq) FROM events) AND """
    + NO_JOBS.format("events.job"),
)
TEMPLATES = (
    "SELECT id FROM templates WHERE id > ? ORDER BY id LIMIT ?",
    """DELETE FROM templates WHERE id > ? AND id <= ?
      AND NOT EXISTS (SELECT 1 FROM jobs WHERE template = templates.id)
      AND id NOT IN (SELECT template FROM arrays)""",
)
ENVIRONMENTS = (
    "SELECT id FROM environments WHERE id > ? ORDER BY id LIMIT ?",
    """DELETE FROM environments WHERE id > ? AND id <= ?
      AND NOT EXISTS (SELECT 1 FROM templates WHERE environment = environments.id)""",
)
# No job but gpud itself; before all that the jobs that are kept have to tell.
OWN = (
    "SELECT seq FROM events WHERE job = 0 AND count = 1 AND seq > ? ORDER BY seq LIMIT ?",
    """DELETE FROM events WHERE job = 0 AND count = 1 AND seq > ? AND seq <= ?
      AND seq < (SELECT max(seq) FROM events)
      AND at_ms < (SELECT min(submitted_at_ms) FROM jobs
        WHERE id = (SELECT min(id) FROM jobs))""",
)
TABLES = (SUBMISSIONS, STORIES, TEMPLATES, ENVIRONMENTS, OWN)
FIRST: tuple[Any, ...] = ("", 0, 0, 0, 0)


class Walk(Struct, frozen=True):
    """How far the walk has come: through which table, and to which key."""

    table: int = 0
    key: Any = ""


def step(db: sqlite3.Connection, interned: Interned, walk: Walk) -> Walk | None:
    """One stretch further; None: the end."""
    stretch, delete = TABLES[walk.table]
    keys = db.execute(stretch, (walk.key, STRETCH)).fetchall()
    if keys:
        (until,) = keys[-1]
        gone = db.execute(delete, (walk.key, until)).rowcount
        if gone and TABLES[walk.table] in (TEMPLATES, ENVIRONMENTS):
            interned.clear()
        if len(keys) == STRETCH:
            return Walk(walk.table, until)
    if walk.table + 1 == len(TABLES):
        return None
    return Walk(walk.table + 1, FIRST[walk.table + 1])
