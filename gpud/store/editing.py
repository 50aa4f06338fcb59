"""What edited jobs say now, to their rows.

Called by store/commit.py inside its transaction. Priority and place are in the job's record, and
what it comes after in a table of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from gpud.core.model import JobId, JobSpec
from gpud.store.codec import encode_argv
from gpud.store.intern import Interned, shared_by

# The right sides are of before: an entry of a source stays known by the command that stood there.
REWRITE = """UPDATE jobs SET template = ?, name = ?, argv = ?, entry_command = CASE
    WHEN source <> '' AND entry_command IS NULL AND command <> ? THEN command
    ELSE entry_command END,
  command = ? WHERE id = ?"""


def rewrite(db: sqlite3.Connection, interned: Interned, edited: Mapping[JobId, JobSpec]) -> None:
    templates: dict[tuple[object, ...], int] = {}
    rows = []
    for job, spec in edited.items():
        shared = shared_by(spec)
        template = templates.get(shared)
        if template is None:
            template = templates[shared] = interned.intern(spec)
        argv = encode_argv(spec.argv)
        rows.append((template, spec.name, argv, spec.command, spec.command, job))
    db.executemany(REWRITE, rows)
