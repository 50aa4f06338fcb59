"""The contracts between the engine and its adapters, in prose.

A class is an adapter when it passes the contract suite of its port (`tests/contracts/`); it need
not inherit from anything here. Every *expected* failure of the outside world becomes an event or
a health report; what escapes from an adapter is a bug and ends the daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from gpud.core.actions import StartAttempt, StopAttempt
from gpud.core.events import Event
from gpud.core.model import Cursor, JobId, JobSpec, NewJob


class Launch(Struct, frozen=True):
    """A committed start, with all that the executor needs to make the process.

    `spec` comes from the store; `ids` are the leased devices in lease order.
    """

    action: StartAttempt
    spec: JobSpec
    ids: tuple[str, ...]


class Executor(Protocol):
    """Starts, adopts, stops and observes attempts.

    `perform` calls never block and never fail: what happened comes back as events, posted to the
    function the executor was given. Each call may be repeated: an attempt that was seen is never
    started again. `RunnerReady` is posted when every runner has listed what it has, before any
    end it repeats; after `RunnerGone` nothing is started until the next `RunnerReady`. An end is
    repeated, over reconnects too, until `forget` was called for it.
    """

    def start(self, launch: Launch) -> None: ...

    def stop(self, action: StopAttempt) -> None: ...

    def forget(self, attempts: Sequence[tuple[JobId, int]]) -> None: ...


class SourceHealth(Struct, frozen=True):
    """What `gpuctl sources` shows of a source. `problem` is "" while all is well."""

    problem: str = ""
    note: str = ""  # the last decision about a changed file, for people
    last_read_at_ms: int = 0


class SourceHost(Protocol):
    """What the engine offers a source.

    `take` returns when jobs and cursor are committed, in one transaction: only then may the source
    read on. While the store cannot write, `take` waits: nothing is lost, nothing is repeated. The
    result is the first id (ids are contiguous), or 0 when `jobs` was empty.
    `position` is the last committed cursor of this source, or None at its first sight.
    """

    def position(self) -> str | None: ...

    async def take(self, jobs: Sequence[NewJob], cursor: Cursor | None) -> int: ...

    def report(self, health: SourceHealth) -> None: ...


class Source(Protocol):
    """Turns entries into jobs.

    `run` works until it is cancelled, or returns when the source is exhausted (standard input).
    It survives whatever happens to its file or server: it reports the problem and tries again
    with growing pauses. Entries are taken in their order; an entry that cannot become a job is
    taken all the same, as a `NewJob` with a `problem`. Cancelling `run` between two `take`s loses
    nothing.
    """

    name: str
    kind: str

    async def run(self, host: SourceHost) -> None: ...


class Post(Protocol):
    """The engine's mailbox: never blocks; the event is handled in the next turn."""

    def __call__(self, event: Event) -> None: ...
