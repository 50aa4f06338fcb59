"""New jobs to rows, by the run: a hundred thousand in one go, or one.

Owns INSERT INTO jobs. Called by store/commit.py inside its transaction. A run is a stretch of
jobs that differ only in name, entry, origin and command: what they share is bound once for up to
RUN rows of one statement, which takes a third of the time of a statement each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from operator import attrgetter

from gpud.core.model import Job, JobId, NewJob
from gpud.store.codec import VALUE, encode_argv
from gpud.store.intern import Interned, shared_by
from gpud.store.tally import Kind, kind_of

RUN = 64
SIZES = (RUN, 8, 1)  # rows of one statement; few sizes, so that each is prepared once

recorded = attrgetter(
    "priority",
    "submitted_at_ms",
    "retries_left",
    "attempt",
    "retry_no",
    "not_before_ms",
    "ended_at_ms",
    "why",
    "place",
    "state",
    "outcome",
)


def _statement(rows: int) -> str:
    """First the first id and what the rows share, then what each row has of its own."""
    values = ",".join(f"({row},?,?,?,?,?)" for row in range(rows))
    return f"""INSERT INTO jobs (id, template, source, priority, submitted_at_ms, retries_left,
      attempt, retry_no, not_before_ms, ended_at_ms, why, place, state, outcome,
      name, entry_key, origin, argv, command)
      WITH shared (a, b, c, d, e, f, g, h, i, j, k, l, m, n) AS
          (VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)),
        own (o, p, q, r, s, t) AS (VALUES {values})
      SELECT a + o, b, c, d, e, f, g, h, i, j, k, nullif(l, 0), m, n, p, q, r, s, t
        FROM shared, own"""


SHARED, OWN = 14, 5  # parameters of a run, and of each of its rows
INSERT = {size: _statement(size) for size in SIZES}


class Inserter:
    """One per transaction. `moved` and `taken` are what it adds to the tally."""

    def __init__(
        self,
        db: sqlite3.Connection,
        interned: Interned,
        moved: dict[Kind, int],
        taken: dict[str, int],
    ) -> None:
        self._db = db
        self._interned = interned
        self._moved = moved
        self._taken = taken
        self._templates: dict[tuple[object, ...], int] = {}  # by `shared_by`

    def insert(self, new: Iterable[tuple[JobId, NewJob]], records: dict[JobId, Job]) -> None:
        """`new` in the order of ids."""
        run: tuple[object, ...] = ()
        first = JobId(0)
        own: list[object] = []
        head = None
        for job_id, item in new:
            spec = item.spec
            mine = (spec.source, shared_by(spec), recorded(records[job_id]))
            follows = job_id == first + len(own) // OWN
            if mine != run or len(own) == RUN * OWN or not follows:
                if head is not None:
                    self._write(first, head, own)
                run, first, own, head = mine, job_id, [], (item, records[job_id])
            argv = spec.argv
            own += (
                spec.name,
                spec.entry_key,
                spec.where,
                None if argv is None else encode_argv(argv),
                spec.command,
            )
        if head is not None:
            self._write(first, head, own)

    def _write(self, first: JobId, head: tuple[NewJob, Job], own: list[object]) -> None:
        spec, job = head[0].spec, head[1]
        shared = shared_by(spec)
        template = self._templates.get(shared)
        if template is None:
            template = self._templates[shared] = self._interned.intern(spec)
        state = VALUE[job.state]
        outcome = None if job.outcome is None else VALUE[job.outcome]
        common = (template, spec.source, *recorded(job)[:-2], state, outcome)
        count = len(own) // OWN
        done = 0
        for size in SIZES:
            while count - done >= size:
                part = own[done * OWN : (done + size) * OWN]
                self._db.execute(INSERT[size], (first + done, *common, *part))
                done += size
        kind = kind_of(state, outcome, spec.source)
        self._moved[kind] = self._moved.get(kind, 0) + count
        if spec.source:
            self._taken[spec.source] = self._taken.get(spec.source, 0) + count
