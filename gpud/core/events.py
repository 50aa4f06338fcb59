"""Facts that reach the core, in the past tense. Frozen and tagged: they serialise, log, replay.

Posted by adapters and by the control server; consumed by `scheduler.handle`. `request` is a number
the asker chose: the answer comes back as an `Answer` or `Refuse` action that carries it, after the
commit. What the core cannot know of the past (it remembers only jobs that are not done) the
engine adds to the event before handing it in: the fields `earlier` and `recalled`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gpud.core.health import DEFAULT_POLICY, GpuPolicy
from gpud.core.model import Cursor, Device, Job, JobId, JobSpec, NewJob, Outcome, Rusage
from gpud.core.rules import Rules, Window
from gpud.core.sight import GpuSight


class Event(Struct, frozen=True, tag_field="event", tag=True):
    pass


class JobsSubmitted(Event, frozen=True):
    """A person's submit: all jobs or none. `key` makes it idempotent."""

    request: int
    jobs: tuple[NewJob, ...]
    key: str = ""
    digest: str = ""  # of the submission's content; a key used again for other content is refused
    earlier: tuple[int, int, str] | None = None  # (first id, count, digest) of an earlier submit
    outcomes: dict[JobId, Outcome] = {}  # of the done jobs that these come after


class EntriesRead(Event, frozen=True):
    """A source took entries: bad ones end as not-started, the others queue; cursor and jobs commit
    together."""

    request: int
    source: str
    jobs: tuple[NewJob, ...]
    cursor: Cursor | None = None


class CancelRequested(Event, frozen=True):
    request: int
    jobs: tuple[JobId, ...]
    grace_s: float | None = None


class RetryRequested(Event, frozen=True):
    request: int
    jobs: tuple[JobId, ...]
    recalled: tuple[Job, ...] = ()  # the records of those that are done
    args: bytes | None = None  # at the end of their commands from now on
    outcomes: dict[JobId, Outcome] = {}  # of the done jobs that these come after


class HoldRequested(Event, frozen=True):
    request: int
    jobs: tuple[JobId, ...]


class ReleaseRequested(Event, frozen=True):
    request: int
    jobs: tuple[JobId, ...]


class PauseRequested(Event, frozen=True):
    request: int
    jobs: tuple[JobId, ...]


class ContinueRequested(Event, frozen=True):
    request: int
    jobs: tuple[JobId, ...]


class CheckpointRequested(Event, frozen=True):
    """Jobs are to save their state and leave: they are queued again."""

    request: int
    jobs: tuple[JobId, ...]
    grace_s: float | None = None  # None: the job's


class Edit(Struct, frozen=True):
    """What a job says from now on. `was`: what it said when that was made from it; `told`: what is
    different, for its story."""

    job: JobId
    was: JobSpec
    becomes: JobSpec
    told: dict[str, object] = {}


class EditRequested(Event, frozen=True):
    request: int
    edits: tuple[Edit, ...]
    outcomes: dict[JobId, Outcome] = {}  # of the done jobs that these come after


Place = Literal["before", "after", "first", "last"]


class MoveRequested(Event, frozen=True):
    """To another place in the queue, in their order: beside a job, or to an end."""

    request: int
    jobs: tuple[JobId, ...]
    to: Place
    beside: JobId = JobId(0)


class SwapRequested(Event, frozen=True):
    """Each gets the other's place in the queue."""

    request: int
    jobs: tuple[JobId, JobId]


class DrainRequested(Event, frozen=True):
    request: int


class UndrainRequested(Event, frozen=True):
    request: int


class SourceSwitched(Event, frozen=True):
    """A person stopped or started a source."""

    request: int
    source: str
    stopped: bool


class DevicesChanged(Event, frozen=True):
    devices: tuple[Device, ...]
    policy: GpuPolicy = DEFAULT_POLICY
    unknown: str = ""  # why nobody knows yet what GPUs there are: none is used until then


class RulesChanged(Event, frozen=True):
    """What is configured about groups, users, labels and sources: all of it."""

    rules: Rules


class WindowsTurned(Event, frozen=True):
    """All that a provider has to say now, by key. Posted when anything of it is different."""

    provider: str
    windows: dict[str, Window]


class GateRequested(Event, frozen=True):
    """A person's word about a gate, which goes before what is configured. None: as before;
    `DEFAULT`: as configured; `NONE` (core/rules.py): no limit."""

    request: int
    key: str
    limit: int | None = None
    max_fails: int | None = None


class KnownAttempt(Struct, frozen=True):
    job: JobId
    attempt: int
    phase: str  # of the runner's protocol
    pid: int = 0
    older: bool = False  # its runner knows neither pause nor checkpoint


class RunnerReady(Event, frozen=True):
    """All runners have said what they have; their unforgotten ends follow as events."""

    boot_id: str
    known: tuple[KnownAttempt, ...] = ()


class RunnerGone(Event, frozen=True):
    why: str


class AttemptStarted(Event, frozen=True):
    job: JobId
    attempt: int
    pid: int
    at_ms: int


class AttemptLingering(Event, frozen=True):
    """The shell has ended, `processes` of the payload live on; the lease stays."""

    job: JobId
    attempt: int
    at_ms: int
    processes: tuple[str, ...]


class AttemptEnded(Event, frozen=True):
    """The whole payload is gone. Exactly one of exit_code, signal and lost is set."""

    job: JobId
    attempt: int
    at_ms: int
    exit_code: int | None = None
    signal: int | None = None
    lost: str | None = None
    timed_out: bool = False
    stopped: bool = False  # the runner had been asked to stop it, or for a checkpoint
    rusage: Rusage | None = None
    killed: tuple[str, ...] = ()  # what outlived the shell and had to be ended
    unassigned: tuple[str, ...] = ()
    oom: str = ""  # it ran out of memory: "cuda" (of a GPU), "host"
    likeness: str = ""  # added by the engine: whose memory this end tells about


class AttemptNotStarted(Event, frozen=True):
    job: JobId
    attempt: int
    at_ms: int
    kind: str
    why: str


class LogCut(Event, frozen=True):
    """The log had grown past its cap: so many bytes were cut out of its middle, for the first
    time."""

    job: JobId
    attempt: int
    bytes: int


class LogTooLarge(Event, frozen=True):
    """The log, of so many bytes, has grown past its cap and cannot be cut; `why` is a clause."""

    job: JobId
    attempt: int
    bytes: int
    why: str


class DiskFull(Event, frozen=True):
    """There is too little room for what another job would write; `why` is a clause."""

    why: str


class GpusSeen(Event, frozen=True):
    """One look at all GPUs. `problem`: the driver could not be asked; then there are no sights."""

    at_ms: int  # when the look began
    gpus: tuple[GpuSight, ...]
    problem: str = ""


class GpuBroke(Event, frozen=True):
    """The driver reports a fault of the hardware (an Xid) that makes this GPU useless."""

    uuid: str
    at_ms: int
    why: str  # a clause: "Xid 79: it has fallen off the bus"


class HealRequested(Event, frozen=True):
    """A person says that quarantined GPUs work again; none named: all of them."""

    request: int
    uuids: tuple[str, ...]


class Tick(Event, frozen=True):
    """Time passed; posted when `next_deadline` is due."""
