"""The contracts between the engine and its adapters, in prose.

A class is an adapter when it passes the contract suite of its port (`tests/contracts/`); it need
not inherit from anything here. Every *expected* failure of the outside world becomes an event or
a health report; what escapes from an adapter is a bug and ends the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from gpud.config.schema import JobDefaults
from gpud.core.actions import (
    Answer,
    CheckpointAttempt,
    ContinueAttempt,
    PauseAttempt,
    StartAttempt,
    StopAttempt,
)
from gpud.core.changes import By, Changes, NewSubmission
from gpud.core.events import Event
from gpud.core.health import Quarantine
from gpud.core.log_caps import Room
from gpud.core.model import Attempt, Cursor, Device, Job, JobId, JobSpec, NewJob, Outcome
from gpud.core.retention import Ended, Limits
from gpud.core.rules import Kept
from gpud.core.shares import Sum
from gpud.core.sight import GpuInfo
from gpud.core.spans import Spans
from gpud.core.state import State
from gpud.errors import GpudError
from gpud.protocol.replies import ArrayView, AuditView, EventView, JobDetail, JobView, SourceView
from gpud.protocol.selectors import Selection


class Launch(Struct, frozen=True):
    """A committed start, with all that the executor needs to make the process.

    `spec` comes from the store; `by_uuid`: the job gets UUIDs, not indexes.
    """

    action: StartAttempt
    spec: JobSpec
    devices: tuple[Device, ...]  # of the lease, in its order


class Executor(Protocol):
    """Starts, adopts, stops and observes attempts.

    `perform` calls never block and never fail: what happened comes back as events, posted to the
    function the executor was given. Each call may be repeated: an attempt that was seen is never
    started again. `RunnerReady` is posted when every runner has listed what it has, before any
    end it repeats; after `RunnerGone` nothing is started until the next `RunnerReady`. An end is
    repeated, over reconnects too, until `forget` was called for it.
    A paused attempt stands still, all its processes, and so does its time limit, until it is
    continued, stopped, or asked for a checkpoint; it stays so over reconnects, and is listed with
    the phase "paused". A checkpoint is the signal, and after the grace a stop. An end says whether
    the attempt had been asked to stop or for a checkpoint before it ended (`stopped`).
    """

    def start(self, launch: Launch) -> None: ...

    def stop(self, action: StopAttempt) -> None: ...

    def pause(self, action: PauseAttempt) -> None: ...

    def unpause(self, action: ContinueAttempt) -> None: ...

    def checkpoint(self, action: CheckpointAttempt) -> None: ...

    def forget(self, attempts: Sequence[tuple[JobId, int]]) -> None: ...

    def flush(self) -> None:
        """What was asked for may have been kept until now, to go out together."""
        ...


class GpusFound(Struct, frozen=True):
    """What a machine has. `unusable`: index -> why (a clause), for each GPU that is there and of no
    use; one that could be used once stays in `gpus`, whatever befalls it. `blind`: why processes
    cannot be attributed from here (a container, WSL), or ""."""

    driver: str
    gpus: tuple[GpuInfo, ...]
    unusable: dict[int, str] = {}
    blind: str = ""


class Watched(Struct, frozen=True):
    """What tells our processes from others': live attempts by the pid of their shell, and the
    runners that are the parents of all that they start."""

    attempts: dict[int, tuple[int, int]] = {}  # pid -> (job, attempt)
    runners: tuple[int, ...] = ()


class GpuWatcher(Protocol):
    """Looks at the machine's GPUs, again and again, and never makes anybody wait.

    `find` asks once what there is, all of it, and takes its time; it raises GpudError with one
    sentence: kind `unreachable` when the driver does not answer in time, `not-found` when there is
    no driver or no GPU.
    After `watch`, a `GpusSeen` is posted after each look: every `idle_s`, every `busy_s` while
    attempts are live, and as soon as can be after `look`. Each `look` is followed by a `GpusSeen`
    whose `at_ms` is not before the call, within `LOOK_TIMEOUT_S` and a bit; with a `problem` when
    the driver does not answer. A GPU at which the driver hung is seen with a `problem` that is
    `broken`, and not touched again; the others are looked at without it. After `look(afresh=True)`
    (a person has healed it) it is: until the driver has answered for it or has hung once more, it
    is seen with a `problem` that is not `broken`, and looks at the others go on. No pause is kept
    after trouble with the whole driver then, and GPUs that are not listed any more are forgotten.
    Until then these are `broken`; not so one in whose place there is something else (MIG).
    An Xid that makes a GPU useless is posted as `GpuBroke` as soon as the driver tells. `found` is
    called when what there is has changed (another index, MIG switched, one answers that did not).
    Nothing is posted after `close`, which returns at once, whatever the driver does.
    """

    async def find(self) -> GpusFound: ...

    def watch(
        self,
        post: Callable[[Event], None],
        watched: Callable[[], Watched],
        found: Callable[[GpusFound], None],
    ) -> None: ...

    def look(self, afresh: bool = False) -> None: ...

    async def close(self) -> None: ...


class StorageError(GpudError):
    """The store could not write (disk full, I/O error): nothing was written, try again later."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="storage")


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
    `taken` is the multiset of the commands that were taken from this source under entry keys
    "G:…" with G >= `generation`, by their digests (core/entries.py), done jobs and those with a
    problem included; asked for only when a file was replaced. The store must keep what answers it
    as long as the source's cursor says `base` <= G, else a line could run twice: it does so when it
    forgets a job, too.
    """

    def position(self) -> str | None: ...

    async def taken(self, generation: int) -> Mapping[bytes, int]: ...

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


class Loaded(Struct, frozen=True):
    """What the store gives the engine at start. `jobs`: those not done, in dispatch order."""

    jobs: list[Job]
    attempts: list[Attempt]  # the live ones
    next_id: JobId
    draining: bool
    stopped_sources: frozenset[str]
    quarantines: dict[str, Quarantine] = {}  # by UUID
    usual_mib: dict[str, int] = {}  # likeness -> MiB
    outcomes: dict[JobId, Outcome] = {}  # of the done jobs that any of these come after
    arrays: tuple[tuple[int, int], ...] = ()  # first and last id of all there ever were
    gates: dict[str, Kept] = {}  # by key
    usage: dict[int, Sum] = {}  # by uid


class LogFile(Struct, frozen=True, order=True):
    """The log of one attempt."""

    job: JobId
    attempt: int


class Files(Protocol):
    """What lies beside the store, for housekeeping; every method blocks, and is called in a thread.

    What is wrong with one file keeps no other: it comes back as a sentence, "" for none.
    """

    def sizes(self) -> dict[JobId, int]:
        """Bytes on the disk of the logs of each job that has any. Raises GpudError."""
        ...

    def remove(self, files: Sequence[LogFile]) -> tuple[list[LogFile], str]:
        """Those that are gone now; a file that was not there is."""
        ...

    def rooms(self, files: Sequence[LogFile]) -> dict[LogFile, Room]:
        """Of those that there are."""
        ...

    def punch(self, file: LogFile, first: int, end: int) -> None:
        """Cut these bytes out; the others stay where they are. Raises GpudError with a clause."""
        ...

    def prune_runs(self, longest_ms: int, now_ms: int, *, really: bool) -> tuple[list[str], str]:
        """Runs of `gpud run` that have been over for longer; those that went, or would."""
        ...


class Likeness(Struct, frozen=True):
    """Jobs that run about as long: of one person, under one name; without one, of one array."""

    uid: int = 0
    name: str = ""
    array: int = 0


class Store(Protocol):
    """The memory that survives.

    `commit` writes all of a `Changes` in one transaction or raises `StorageError` and has written
    none of it; it may then be called again with the same changes. When it returns, the changes
    survive `kill -9`, and with `durable` a power cut. It gives back the events of the story as
    committed, with their sequence numbers. Queries see committed state only.
    """

    def load(self) -> Loaded: ...

    def commit(self, changes: Changes) -> list[EventView]: ...

    def spec(self, job: JobId) -> JobSpec: ...

    def submission(self, key: str) -> NewSubmission | None: ...

    def outcomes(self, jobs: Sequence[JobId]) -> dict[JobId, Outcome]:
        """Of those of `jobs` that are done."""
        ...

    def array_at(self, first: JobId) -> int | None:
        """The last id of the array whose first element this is; None: there is none."""
        ...

    def together(self, jobs: Sequence[JobId]) -> list[JobId | Spans]:
        """The same with elements that have not changed as one entry for each array, in the place of
        the first of them."""
        ...

    def recall(self, jobs: Sequence[JobId]) -> list[Job]:
        """The records of those of `jobs` that exist and are done."""
        ...

    def position(self, source: str) -> str | None: ...

    def taken(self, source: str, generation: int) -> dict[bytes, int]:
        """What `SourceHost.taken` promises. Walks all jobs of the source."""
        ...

    def select(self, selection: Selection) -> list[JobId]:
        """Ids in ascending order. Raises GpudError (not-found) for an id that does not exist, or
        a name, range, source, group, label or user that matches nothing; a state that matches
        nothing is no error."""
        ...

    def views(self, jobs: Sequence[JobId | Spans]) -> list[JobView]:
        """In the order of `jobs`; `reason` left empty. One for each entry of `together`."""
        ...

    def page(self, recent: int, limit: int) -> tuple[list[JobView], int]:
        """The last `recent` ended ones, then active ones, then what waits, in dispatch order; at
        most `limit` (0: all) of the not-done ones, and how many more there are."""
        ...

    def details(self, jobs: Sequence[JobId]) -> list[JobDetail]: ...

    def likeness(self, job: JobId) -> Likeness | None:
        """What it has in common with jobs that run about as long; None where nothing is known."""
        ...

    def runs_ms(self, likeness: Likeness, before: JobId) -> list[int]:
        """How long jobs of this likeness with ids before this one ran that succeeded, each in its
        last attempt, without its pauses: the newest first. A look at a few of them is enough."""
        ...

    def array_views(self, arrays: Sequence[JobId]) -> list[ArrayView]:
        """Of arrays by the ids of their first elements."""
        ...

    def owners(self, jobs: Sequence[int]) -> dict[int, int]:
        """The uid of each of those of `jobs` that exist."""
        ...

    def audit(self, job: JobId) -> list[AuditView]:
        """What people asked for about this job, the oldest first."""
        ...

    def events_after(self, seq: int, limit: int) -> list[EventView]: ...

    def last_seq(self) -> int: ...

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many jobs per state, and per outcome."""
        ...

    def group_counts(self) -> dict[str, dict[str, int]]:
        """Of each group that has jobs: how many per state, and per outcome of those that are done.
        Walks the jobs of groups the first time."""
        ...

    def source_counts(self) -> dict[str, tuple[int, int]]:
        """Per source: entries taken, and jobs of them that are not done."""
        ...

    # Forgetting, in short steps, between two turns of the engine. Each is one transaction, or
    # raises `StorageError` and has done nothing.

    def ended(self, after: tuple[int, int], limit: int) -> list[Ended]:
        """Done jobs, those that ended first at the front, from after this end and id on."""
        ...

    def ended_of(self, jobs: Sequence[JobId]) -> list[Ended]:
        """Of those of `jobs` that are done, in no order."""
        ...

    def prune(self, jobs: Sequence[JobId], at_ms: int) -> tuple[JobId, ...]:
        """Forget those of `jobs` that are done, with their stories; gives back which went. Elements
        of an array stay while others of it are as they were submitted, its first one while any
        other is kept. Their entries stay known to their sources, and their logs are due."""
        ...

    def prune_logs(self, jobs: Sequence[JobId], at_ms: int) -> None:
        """The logs of those of `jobs` that are done are due, and shown as gone."""
        ...

    def logs_due(self, limit: int) -> list[LogFile]:
        """Logs whose files are to be removed, until `logs_removed` was called for them."""
        ...

    def logs_removed(self, files: Sequence[LogFile]) -> None: ...

    def cut(self, file: LogFile, first: int, end: int) -> None:
        """The log has no bytes from `first` to before `end` any more; the last word counts, and
        (0, 0) takes it back."""
        ...

    def sweep(self, walk: Any) -> Any:
        """A stretch of what no job refers to any more. `walk`: None at first, then what the last
        call gave back; None: that was all."""
        ...


class Pruned(Struct, frozen=True):
    """What went, or would. `log_bytes`: of all logs that went, also those of jobs that went."""

    jobs: int = 0
    logs: int = 0  # jobs whose logs went while they stay
    log_bytes: int = 0
    runs: int = 0  # directories of `gpud run`


class Controlled(Protocol):
    """What the control server is given: the daemon as seen from the socket.

    `ask` posts a request event (built by `make` from the request number it is given) and returns
    its answer after the commit; `by` is written down with what it changes. It raises GpudError:
    what the core refused, or kind `storage` at once while the store cannot write. `state` is for
    reading only.
    """

    started_at_ms: int
    state_dir: str
    socket: str
    defaults: JobDefaults  # what a submit's jobs get where they do not say
    submits_as: int  # the uid that a submit's jobs get
    forecasting: asyncio.Lock  # one forecast at a time: each has a copy of the queue

    @property
    def state(self) -> State: ...

    @property
    def store(self) -> Store: ...

    async def ask(self, make: Callable[[int], Event], by: By | None = None) -> Answer: ...

    def now_ms(self) -> int: ...

    def subscribe(self, listener: Callable[[Sequence[EventView]], None]) -> Callable[[], None]:
        """Every committed event from now on, in order, in batches; gives back the way to stop."""
        ...

    def sources(self) -> list[SourceView]: ...

    async def switch_source(self, name: str, *, stopped: bool, by: By | None = None) -> None:
        """Stop or start a source. Raises GpudError (not-found) for one that is not configured."""
        ...

    def gpu_note(self) -> str:
        """A sentence: what of the GPUs cannot be seen, and why; "" when all can."""
        ...

    async def prune(self, limits: Limits, *, really: bool) -> Pruned:
        """A pass of housekeeping with these limits; not `really`: what it would do."""
        ...

    @property
    def limits(self) -> Limits:
        """Of what is kept, as configured."""
        ...

    def problems(self) -> list[str]:
        """Sentences: what is wrong now (storage, runner, sources)."""
        ...

    def metrics(self) -> str:
        """OpenMetrics text."""
        ...

    async def reload(self) -> list[str]: ...


class Measured(Protocol):
    """What metrics are read from: the daemon as it is now. Nothing here takes a query."""

    started_at_ms: int

    @property
    def state(self) -> State: ...

    @property
    def store(self) -> Store: ...

    @property
    def storage_problem(self) -> str: ...

    def set_aside_count(self) -> int:
        """Jobs at which gpud has crashed three times."""
        ...

    def now_ms(self) -> int: ...

    def sources(self) -> list[SourceView]: ...

    def problems(self) -> list[str]: ...
