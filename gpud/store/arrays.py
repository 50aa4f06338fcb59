"""Arrays: one row for each, and rows of `jobs` only for elements that have changed.

Owns the table `arrays`, and knows in memory which elements have no row yet: the committed ones in
`rest`. Called by store/commit.py inside its transaction, and by the queries.

Rule 1: an element without a row is as its array says. Its row, once it gets one, has all that a job
has but for the entry key, which is the array's, and what it comes after.
Rule 2: what `Arrays` knows changes only after COMMIT has returned: `committed`.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from gpud.core.changes import Changes, EndOfMany
from gpud.core.indices import nth, size
from gpud.core.model import (
    AT_ONCE,
    After,
    Array,
    Element,
    Indices,
    Job,
    JobId,
    JobSpec,
    JobState,
    NewJob,
)
from gpud.core.rules import keys_of
from gpud.core.shape import last_start_ms, within_s
from gpud.core.spans import Spans, common, count, each, holds, spans_of, without
from gpud.store.codec import VALUE, decode_argv, encode, encode_amended, encode_argv
from gpud.store.intern import Interned, tags_of
from gpud.store.tally import Kind, kind_of

INSERT = """INSERT INTO arrays (first, last, content, state, priority, submitted_at_ms,
  retries_left, template, name, source, entry_key, origin, argv, command, why, held_by)
  VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"""
SET_STATE = """UPDATE arrays SET state = ?, priority = ?, place = ?, why = ?, held_by = ?
  WHERE first = ?"""
SET_WHOLE = "UPDATE arrays SET whole = 1 WHERE first = ?"
# What an element has of its own, then what it has of its array.
OWN = """id, state, priority, place, retries_left, attempt, retry_no, not_before_ms, outcome,
  ended_at_ms, why, amended"""
OF_ARRAY = "template, submitted_at_ms, name, source, origin, argv, command"
ELEMENT = f"""INSERT INTO jobs ({OWN}, {OF_ARRAY}, array)
  SELECT ?,?,?,?,?,?,?,?,?,?,?,?, {OF_ARRAY}, first FROM arrays WHERE first = ?"""
END = f"""WITH RECURSIVE ids (id) AS (SELECT ? UNION ALL SELECT id + 1 FROM ids WHERE id < ?)
  INSERT INTO jobs ({OWN}, {OF_ARRAY}, array)
  SELECT id, 'done', priority, place, retries_left, 0, 0, 0, ?, ?, ?, NULL, {OF_ARRAY}, first
  FROM arrays, ids WHERE first = ?"""
ROW = f"""SELECT first, last, content, state, priority, place, why, held_by, retries_left,
  {OF_ARRAY} FROM arrays"""
OPEN = "SELECT first, last, state, source FROM arrays WHERE NOT whole ORDER BY first"
EVERYWHERE: Spans = ((0, 1 << 62),)
CHANGED = "SELECT id FROM jobs WHERE id BETWEEN ? AND ?"


class Content(Struct, frozen=True, gc=False, omit_defaults=True):
    """What was submitted, but for what all jobs have: `arrays.content`."""

    indices: Indices
    at_most: int = 0
    max_fails: int = 0
    after: After = AT_ONCE


class Rest(Struct, frozen=True):
    """Elements without a row."""

    ids: Spans
    state: str
    source: str


class Row(Struct, frozen=True):
    first: JobId
    last: int
    content: Content
    state: str
    priority: int
    place: float | None  # None: by its ids
    why: str
    held_by: str
    retries_left: int
    template: int
    submitted_at_ms: int
    name: str
    source: str
    origin: str
    argv: str | None
    command: bytes

    @property
    def array(self) -> Array:
        return Array(self.content.indices, self.content.at_most, self.content.max_fails)


_content = msgspec.json.Decoder(Content)


class Arrays:
    def __init__(self, db: sqlite3.Connection, interned: Interned) -> None:
        self._db = db
        self._interned = interned
        self._rows: dict[JobId, Row] = {}  # the one that was read last
        self.rest: dict[JobId, Rest] = {}
        for first, last, state, source in db.execute(OPEN).fetchall():
            changed = spans_of(job for (job,) in db.execute(CHANGED, (first, last)))
            self.rest[first] = Rest(without(((first, last),), changed), state, source)
        self._firsts = list(self.rest)  # ascending: ids are given out so

    # -- reading ---------------------------------------------------------------------------------

    def row(self, first: JobId) -> Row:
        found = self._rows.get(first)
        if found is None:
            columns = self._db.execute(f"{ROW} WHERE first = ?", (first,)).fetchone()
            self._rows = {first: (found := _row(columns))}
        return found

    def of_element(self, job: int) -> JobId | None:
        """The array of an element without a row."""
        place = bisect_right(self._firsts, job)
        first = self._firsts[place - 1] if place else None
        return first if first is not None and holds(self.rest[first].ids, job) else None

    def element(self, first: JobId, job: int) -> Element:
        """Which one this job is."""
        array = self.row(first).array
        return Element(first, nth(array.indices, job - first), array)

    def spec(self, job: int) -> JobSpec | None:
        """Of an element without a row."""
        first = self.of_element(job)
        if first is None:
            return None
        row = self.row(first)
        environment, common = self._interned.template(row.template)
        return JobSpec(
            **structs.asdict(common),
            command=row.command,
            argv=decode_argv(row.argv),
            env=self._interned.environment(environment),
            name=row.name,
            priority=row.priority,
            after=row.content.after,
            element=self.element(first, job),
            source=row.source,
            where=row.origin,
        )

    def records(self) -> list[Job]:
        """Those that stand for all elements without a row."""
        found = []
        for first, rest in self.rest.items():
            row = self.row(first)
            common = self._interned.template(row.template)[1]
            queued = rest.state == JobState.QUEUED
            found.append(
                Job(
                    id=JobId(-first),
                    request=common.request,
                    priority=row.priority,
                    place=row.place or 0,
                    retry=common.retry,
                    grace_s=common.grace_s,
                    state=JobState(rest.state),
                    submitted_at_ms=row.submitted_at_ms,
                    retries_left=row.retries_left,
                    not_before_ms=common.begin_ms if queued else 0,  # past ones are due at once
                    source=row.source,
                    within_s=within_s(common.time_limit_s, common.grace_s, common.linger_s),
                    begin_ms=common.begin_ms,
                    checkpoint=common.checkpoint,
                    last_start_ms=last_start_ms(common.deadline_ms, common.time_limit_s),
                    after=row.content.after,
                    why=row.why,
                    uid=common.uid,
                    belongs=keys_of(common.group, common.uid, row.source, common.labels, first),
                    held_by=row.held_by,
                    array=first,
                    rest=rest.ids,
                )
            )
        return found

    def last_of(self, job: int) -> int | None:
        """The last id of the array whose first element this is."""
        found = self._db.execute("SELECT last FROM arrays WHERE first = ?", (job,)).fetchone()
        return found[0] if found else None

    def resting(
        self,
        *,
        state: str = "",
        name: str = "",
        source: str = "",
        tag: str = "",
        within: Spans = EVERYWHERE,
    ) -> Iterator[JobId]:
        """Elements without a row, of arrays of which this is true."""
        for first, rest in self.rest.items():
            wanted = state in ("", rest.state) and source in ("", rest.source)
            if name:
                wanted = wanted and self.row(first).name == name
            if tag:
                wanted = wanted and tag in self.tags(first)
            if wanted:
                yield from map(JobId, each(common(rest.ids, within)))

    def tags(self, first: JobId) -> tuple[str, ...]:
        """What its elements can be selected by, but for those that were edited."""
        return tags_of(self._interned.template(self.row(first).template)[1])

    def together(self, jobs: Sequence[JobId]) -> list[JobId | Spans]:
        """See ports.Store."""
        found: list[JobId | Spans] = []
        places: dict[JobId, tuple[int, list[JobId]]] = {}
        for job in jobs:
            first = self.of_element(job) if self.rest else None
            if first is None:
                found.append(job)
            elif first in places:
                places[first][1].append(job)
            else:
                places[first] = len(found), [job]
                found.append(job)
        for place, elements in places.values():
            found[place] = spans_of(elements)
        return found

    def counts(self) -> dict[Kind, int]:
        """How many elements without a row there are of each kind."""
        found: dict[Kind, int] = {}
        for rest in self.rest.values():
            kind = kind_of(rest.state, None, rest.source)
            found[kind] = found.get(kind, 0) + count(rest.ids)
        return found

    # -- writing ---------------------------------------------------------------------------------

    def insert(self, first: JobId, new: NewJob, record: Job) -> None:
        spec, array = new.spec, new.spec.array
        assert array is not None
        content = Content(array.indices, array.at_most, array.max_fails, record.after)
        row = (
            first,
            first + size(array.indices) - 1,
            encode(content),
            VALUE[record.state],
            record.priority,
            record.submitted_at_ms,
            record.retries_left,
            self._interned.intern(spec),
            spec.name,
            spec.source,
            spec.entry_key,
            spec.where,
            encode_argv(spec.argv),
            spec.command,
            record.why,
            record.held_by,
        )
        self._db.execute(INSERT, row)

    def write(
        self, changes: Changes, new: Mapping[JobId, NewJob]
    ) -> tuple[set[JobId], dict[JobId, Rest]]:
        """New arrays, elements that have changed, and those that ended as they were. Gives back the
        elements that have got a row, and what `committed` wants once they have."""
        rest = dict(self.rest)
        for first, item in new.items():
            record = changes.jobs[JobId(-first)]
            self.insert(first, item, record)
            assert item.spec.array is not None
            last = first + size(item.spec.array.indices) - 1
            rest[first] = Rest(((first, last),), VALUE[record.state], record.source)
        if not rest:
            return set(), rest
        for many, record in changes.jobs.items():
            if many < 0 and (first := JobId(-many)) in rest:
                state = VALUE[record.state]
                rest[first] = Rest(rest[first].ids, state, record.source)
                if first not in new:
                    row = (
                        state,
                        record.priority,
                        record.place or None,
                        record.why,
                        record.held_by,
                        first,
                    )
                    self._db.execute(SET_STATE, row)
        gone: dict[JobId, list[int]] = {}
        elements = set()
        for job_id, record in changes.jobs.items():
            first = record.array
            if job_id > 0 and first in rest and holds(rest[first].ids, job_id):
                self._db.execute(ELEMENT, (*_own(record), first))
                gone.setdefault(first, []).append(job_id)
                elements.add(job_id)
        ended: dict[JobId, list[tuple[int, int]]] = {}
        for end in changes.ends:
            self._end(end)
            ended.setdefault(end.array, []).append((end.first, end.last))
        for first in {*gone, *ended}:
            left = without(rest[first].ids, spans_of(gone.get(first, ())))
            left = without(left, tuple(sorted(ended.get(first, ()))))
            if left:
                rest[first] = Rest(left, rest[first].state, rest[first].source)
            else:
                del rest[first]
                self._db.execute(SET_WHOLE, (first,))
        return elements, rest

    def _end(self, end: EndOfMany) -> None:
        outcome = VALUE[end.outcome]
        row = (end.first, end.last, outcome, end.at_ms, end.why, end.array)
        self._db.execute(END, row)

    def committed(self, rest: dict[JobId, Rest]) -> None:
        self._rows.clear()
        if rest != self.rest:
            self.rest = rest
            self._firsts = list(rest)

    def forget(self) -> None:
        """Rows of arrays were deleted; those of their elements, all of which had one, too."""
        self._rows.clear()


def moves(changes: Changes, new: Mapping[JobId, NewJob], moved: dict[Kind, int]) -> None:
    """What these changes do to the counts, but for elements that have got a row."""

    def move(kind: Kind, by: int) -> None:
        moved[kind] = moved.get(kind, 0) + by

    for item in new.values():
        spec = item.spec
        assert spec.array is not None
        state = JobState.HELD if spec.held else JobState.QUEUED
        move(kind_of(VALUE[state], None, spec.source), size(spec.array.indices))
    for job_id, (state, _) in changes.before.items():
        if job_id < 0 and (record := changes.jobs.get(job_id)) is not None:
            left = count(record.rest)
            move(kind_of(VALUE[state], None, record.source), -left)
            move(kind_of(VALUE[record.state], None, record.source), left)
    for end in changes.ends:
        many = end.last - end.first + 1
        move(kind_of(VALUE[end.was], None, end.source), -many)
        move(kind_of("done", VALUE[end.outcome], end.source), many)


def after_of(content: str) -> After:
    return _content.decode(content).after


def _row(columns: Sequence[Any]) -> Row:
    first, last, content, *rest = columns
    return Row(first, last, _content.decode(content), *rest)


def _own(record: Job) -> tuple[object, ...]:
    return (
        record.id,
        VALUE[record.state],
        record.priority,
        record.place or None,
        record.retries_left,
        record.attempt,
        record.retry_no,
        record.not_before_ms,
        None if record.outcome is None else VALUE[record.outcome],
        record.ended_at_ms,
        record.why,
        encode_amended(record),
    )
