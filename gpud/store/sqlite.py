"""The store: ports.Store on SQLite.

Owns the connection. Called by the engine (one call at a time, from one thread at a time) and, for
queries, by the control server. Every expected failure is a `StorageError` and has changed nothing;
a violated constraint is a bug and escapes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from gpud.core.changes import Changes, NewSubmission
from gpud.core.model import Job, JobId, JobSpec, Outcome
from gpud.core.retention import Ended
from gpud.core.spans import Spans
from gpud.errors import GpudError
from gpud.ports import Likeness, Loaded, LogFile, StorageError
from gpud.protocol.replies import ArrayView, AuditView, EventView, JobDetail, JobView
from gpud.protocol.selectors import Selection
from gpud.store import (
    alike,
    dependencies,
    gating,
    loading,
    orphans,
    owning,
    selecting,
    telling,
    viewing,
)
from gpud.store.arrays import Arrays
from gpud.store.commit import Writer
from gpud.store.database import connect, connect_in_memory
from gpud.store.intern import Interned
from gpud.store.minimums import check_minimums
from gpud.store.pruning import Pruning
from gpud.store.reserve import Reserve
from gpud.store.schema import MIGRATIONS
from gpud.store.tally import Tally
from gpud.store.trouble import FULL, IOERR, cannot, code_of

DATABASE = "gpud.db"
RESERVE = "reserve"

P = ParamSpec("P")
R = TypeVar("R")


def _reads(
    method: Callable[Concatenate[SqliteStore, P], R],
) -> Callable[Concatenate[SqliteStore, P], R]:
    """A query: what the disk does becomes a StorageError."""

    def guarded(self: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except sqlite3.Error as error:
            raise self._trouble("read", error) from error

    return guarded


class SqliteStore:
    """See ports.Store for what each method promises."""

    def __init__(
        self, db: sqlite3.Connection, path: Path, state_dir: Path, reserve: Reserve | None
    ) -> None:
        self._db = db
        self._path = path
        self._state_dir = state_dir
        self._reserve = reserve
        self._interned = Interned(db)
        self._arrays = Arrays(db, self._interned)
        self._tally = Tally(db, self._arrays.counts())
        self._groups = gating.Groups(db, self._arrays)
        self._specs = loading.SpecReader(db, self._interned, self._arrays)
        self._writer = Writer(db, self._interned, self._arrays, self._tally, self._groups)
        self._pruning = Pruning(db, self._interned, self._arrays, self._tally, self._groups)
        self._identity = _identity_of(path) if reserve is not None else None

    @classmethod
    def open(cls, state_dir: Path, *, durable: bool = True) -> SqliteStore:
        """The store in `state_dir`, whose lock the caller holds (store/statedir.py).

        Raises GpudError (storage) with one sentence: damaged, newer, not ours, no permission.
        """
        check_minimums()
        path = state_dir / DATABASE
        reserve = Reserve(state_dir / RESERVE)
        reserve.restore()
        try:
            db = connect(path, durable=durable, migrations=MIGRATIONS)
        except GpudError as error:
            if not reserve.needed():
                raise
            if not reserve.release():
                raise StorageError(f"cannot open {path}: the disk is full") from error
            db = connect(path, durable=durable, migrations=MIGRATIONS)
        try:
            return cls(db, path, state_dir, reserve)
        except sqlite3.Error as error:
            db.close()
            message = cannot("read", path, error)
            if not message:
                raise
            raise StorageError(message) from error

    @classmethod
    def in_memory(cls, state_dir: Path = Path("/")) -> SqliteStore:
        """For tests and simulations: all but what survives. `state_dir` is for the logs' names."""
        return cls(connect_in_memory(MIGRATIONS), Path(":memory:"), state_dir, None)

    def close(self) -> None:
        self._db.close()

    # -- writing ---------------------------------------------------------------------------

    def commit(self, changes: Changes) -> list[EventView]:
        if not changes:
            return []
        self._check_same_file()
        try:
            views = self._write(changes)
        except sqlite3.Error as error:
            # A quota says IOERR where a disk says FULL.
            if code_of(error) not in (FULL, IOERR) or not self._make_room():
                raise self._trouble("write", error) from error
            try:
                return self._write(changes)
            except sqlite3.Error as again:
                raise self._trouble("write", again) from again
        if self._reserve is not None and not self._reserve.held:
            self._reserve.restore()
        return views

    def _make_room(self) -> bool:
        """On a full disk: give up the reserve, and the journal that is already in the database."""
        released = self._reserve is not None and self._reserve.release()
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            return released
        return True

    def _check_same_file(self) -> None:
        """A database that was removed or replaced under us takes commits that nobody will find."""
        if self._identity is not None and _identity_of(self._path) != self._identity:
            raise StorageError(
                f"cannot write {self._path}: it was removed or replaced while gpud runs; "
                "put it back or restart gpud"
            )

    def _write(self, changes: Changes) -> list[EventView]:
        try:
            views = self._writer.write(changes)
        except BaseException:
            self._interned.forgotten()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._specs.forget(changes.edited)
        return views

    def _trouble(self, verb: str, error: sqlite3.Error) -> StorageError:
        """The StorageError for an error that the disk made; any other is raised again."""
        message = cannot(verb, self._path, error)
        if not message:
            raise error
        return StorageError(message)

    # -- forgetting ------------------------------------------------------------------------

    def prune(self, jobs: Sequence[JobId], at_ms: int) -> tuple[JobId, ...]:
        gone = self._forget(lambda: self._pruning.prune(jobs, at_ms))
        self._specs.forget(gone)
        return gone

    def prune_logs(self, jobs: Sequence[JobId], at_ms: int) -> None:
        self._forget(lambda: self._pruning.prune_logs(jobs, at_ms))

    def logs_removed(self, files: Sequence[LogFile]) -> None:
        self._forget(lambda: self._pruning.logs_removed(files))

    def cut(self, file: LogFile, first: int, end: int) -> None:
        self._forget(lambda: self._pruning.cut(file, first, end))

    def sweep(self, walk: orphans.Walk | None) -> orphans.Walk | None:
        begun = walk or orphans.Walk()
        return self._forget(lambda: orphans.step(self._db, self._interned, begun))

    def _forget(self, work: Callable[[], R]) -> R:
        """No room is made for it: what is forgotten can wait until the disk works."""
        self._check_same_file()
        try:
            return work()
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._trouble("write", error) from error
            raise

    @_reads
    def ended(self, after: tuple[int, int], limit: int) -> list[Ended]:
        return self._pruning.ended(after, limit)

    @_reads
    def ended_of(self, jobs: Sequence[JobId]) -> list[Ended]:
        return self._pruning.ended_of(jobs)

    @_reads
    def logs_due(self, limit: int) -> list[LogFile]:
        return self._pruning.logs_due(limit)

    # -- reading ---------------------------------------------------------------------------

    @_reads
    def load(self) -> Loaded:
        return loading.load(self._db, self._interned, self._arrays)

    @_reads
    def spec(self, job: JobId) -> JobSpec:
        return self._specs.read(job)

    @_reads
    def submission(self, key: str) -> NewSubmission | None:
        return loading.submission(self._db, key)

    @_reads
    def outcomes(self, jobs: Sequence[JobId]) -> dict[JobId, Outcome]:
        return dependencies.outcomes(self._db, jobs)

    @_reads
    def array_at(self, first: JobId) -> int | None:
        return self._arrays.last_of(first)

    def together(self, jobs: Sequence[JobId]) -> list[JobId | Spans]:
        return self._arrays.together(jobs)

    @_reads
    def recall(self, jobs: Sequence[JobId]) -> list[Job]:
        return loading.recall(self._db, self._interned, self._arrays, jobs)

    @_reads
    def position(self, source: str) -> str | None:
        return loading.position(self._db, source)

    @_reads
    def taken(self, source: str, generation: int) -> dict[bytes, int]:
        return loading.taken(self._db, source, generation)

    @_reads
    def select(self, selection: Selection) -> list[JobId]:
        return selecting.select(self._db, self._arrays, selection)

    @_reads
    def views(self, jobs: Sequence[JobId | Spans]) -> list[JobView]:
        return viewing.views(self._db, self._interned, self._arrays, jobs)

    @_reads
    def page(self, recent: int, limit: int) -> tuple[list[JobView], int]:
        ended, waiting = viewing.page(self._db, self._arrays, recent, limit)
        states, _ = self._tally.counts()
        shown = [*ended, *waiting]
        views = viewing.views(self._db, self._interned, self._arrays, shown)
        undone = sum(view.count for view in views[len(ended) :])
        return views, states["queued"] + states["held"] + states["active"] - undone

    @_reads
    def details(self, jobs: Sequence[JobId]) -> list[JobDetail]:
        views = viewing.views(self._db, self._interned, self._arrays, jobs)
        specs = loading.SpecReader(self._db, self._interned, self._arrays)
        return [telling.detail(self._db, specs, self._state_dir, view) for view in views]

    @_reads
    def array_views(self, arrays: Sequence[JobId]) -> list[ArrayView]:
        return [
            telling.array(self._db, self._arrays, first, example)
            for first, example in zip(arrays, self.details(arrays), strict=True)
        ]

    @_reads
    def likeness(self, job: JobId) -> Likeness | None:
        return alike.likeness(self._db, self._interned, self._arrays, job)

    @_reads
    def runs_ms(self, likeness: Likeness, before: JobId) -> list[int]:
        return alike.runs_ms(self._db, self._interned, likeness, before)

    @_reads
    def owners(self, jobs: Sequence[int]) -> dict[int, int]:
        return owning.owners(self._db, self._interned, self._arrays, jobs)

    @_reads
    def audit(self, job: JobId) -> list[AuditView]:
        return owning.audit(self._db, job)

    @_reads
    def events_after(self, seq: int, limit: int) -> list[EventView]:
        return telling.events_after(self._db, seq, limit)

    def last_seq(self) -> int:
        return self._writer.last_seq

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        return self._tally.counts()

    @_reads
    def group_counts(self) -> dict[str, dict[str, int]]:
        return self._groups.counts()

    def source_counts(self) -> dict[str, tuple[int, int]]:
        return self._tally.sources()


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
