"""The nouns of the core: what a job, an attempt, a lease and a device are.

Owns the vocabulary (docs/architecture.md) as types. Everybody imports it; it imports nothing of
gpud and decides nothing. Commands, directories and environments are bytes: a shell does not ask
for UTF-8.
"""

from __future__ import annotations

import enum
from typing import NewType

from msgspec import Struct

JobId = NewType("JobId", int)

CPU_LANE = "cpu"
FULL_MILLI = 1000  # the whole of a device, in thousandths


class JobState(enum.StrEnum):
    QUEUED = "queued"
    HELD = "held"
    ACTIVE = "active"
    DONE = "done"


class Phase(enum.StrEnum):
    """The phases of an active job; each has a live attempt and a lease."""

    STARTING = "starting"  # committed, and on its way to the runner
    RUNNING = "running"
    PAUSED = "paused"  # a person has stopped its processes; they keep what they have
    STOPPING = "stopping"  # a person's cancel, or gpud's own stop, is on its way
    FINISHING = "finishing"  # the payload is gone; a look at its GPUs is awaited


class Outcome(enum.StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    NOT_STARTED = "not-started"
    LOST = "lost"


AUTO_VRAM = -1  # as much as earlier runs of the same name took


class Request(Struct, frozen=True, gc=False):
    """What a job asks of the pool.

    `gpus` None: one slot of any device; 0: the lane `cpu`; n: a slot on each of n GPUs.
    """

    gpus: int | None = None
    share_milli: int = 0  # of one GPU, in thousandths; 0: whole slots
    vram_mib: int = 0  # free on each GPU, and reserved; 0: its share of the memory; or AUTO_VRAM
    gpu_model: str = ""  # a part of the model's name, in any case
    exclusive: bool = False  # nobody beside it on its GPUs
    likeness: str = ""  # with AUTO_VRAM: jobs of one likeness take the same memory


# What a retry policy retries when it does not say: everything but a person's cancel and a job
# that could not be started (a missing directory does not come back by trying).
DEFAULT_RETRY_ON = (Outcome.FAILED, Outcome.KILLED, Outcome.TIMED_OUT, Outcome.LOST)


class RetryPolicy(Struct, frozen=True, gc=False):
    """How often and after which pauses an attempt is tried again (core/retry.py)."""

    retries: int = 0
    backoff_s: float = 10.0  # the first pause; each further one is twice as long
    backoff_max_s: float = 600.0
    on: tuple[Outcome, ...] = DEFAULT_RETRY_ON
    oom: bool = False  # out of memory is retried, whatever `on` says
    codes: tuple[int, ...] = ()  # and so are these exit statuses


class Span(Struct, frozen=True, gc=False):
    """Jobs from `first` to `last` that another comes after. In a submit they may be negative: so
    many jobs before this one."""

    first: int
    last: int
    ended: bool = False  # they have to have ended, however; else to have succeeded


class After(Struct, frozen=True, gc=False):
    """What a job comes after: all of these. `patient`: when one of them can no longer succeed it
    waits for a person's retry, and is not cancelled."""

    spans: tuple[Span, ...] = ()
    patient: bool = False


Indices = tuple[tuple[int, int, int], ...]  # (first, last, step): core/indices.py


class Array(Struct, frozen=True, gc=False):
    """One submit, many jobs: one for each index."""

    indices: Indices
    at_most: int = 0  # of them may run at a time; 0: as many as there is room for
    max_fails: int = 0  # so many failed ones hold the rest; 0: none do


class Element(Struct, frozen=True, gc=False):
    """Which element of an array a job is."""

    first: JobId  # of the array
    index: int
    array: Array


NO_RETRY = RetryPolicy()
ONE_SLOT = Request()
AT_ONCE = After()


class JobSpec(Struct, frozen=True, gc=False):
    """What a job is asked to do: in the store, not in memory. An edit puts another in its place.

    `command` is the shell text, or for an exact argument list (`argv`) its quoted form, for
    showing. `env` is `K=V` strings joined by NUL, the same object for all jobs that share it.
    """

    command: bytes
    argv: tuple[bytes, ...] | None = None
    shell: tuple[bytes, ...] = (b"/bin/sh", b"-c")
    setup: bytes = b""  # a line run before the command, in the same shell
    cwd: bytes = b"/"
    env: bytes = b""
    umask: int | None = None
    name: str = ""
    request: Request = ONE_SLOT
    priority: int = 0  # higher first
    retry: RetryPolicy = NO_RETRY
    retry_args: bytes = b""  # appended to the command from the second attempt on
    time_limit_s: float | None = None
    begin_ms: int = 0  # not before; 0: at once
    deadline_ms: int = 0  # done by then, as far as the time limit tells; 0: whenever
    grace_s: float = 10.0
    linger_s: float | None = 10.0  # None: wait for what the shell left behind
    checkpoint: int = 0  # the signal at which it saves its state and leaves; 0: it does not
    held: bool = False
    after: After = AT_ONCE
    array: Array | None = None
    element: Element | None = None  # where it is read back
    uid: int = 0  # who submitted it
    source: str = ""  # "" for gpuctl submit
    entry_key: str | None = None  # identifies the entry within its source
    where: str = ""  # for people: "gpu.queue:12"


class NewJob(Struct, frozen=True, gc=False):
    """A spec on its way into the queue; with a `problem` it ends as not-started at once."""

    spec: JobSpec
    problem: str = ""


class Job(Struct, gc=False):
    """The record of a job that is not done; what decisions need and no more.

    `attempt` counts attempts so far: the number of the live one while active, else of the last.
    `retries_left` goes down when a retry is scheduled. `not_before_ms` is set only while queued.
    `request` is the spec's, or larger after an attempt ran out of memory.

    Elements of an array that are still as they were submitted have one record together: its `rest`
    has their ids, and its own id is minus that of the first element of the array.
    """

    id: JobId
    request: Request
    priority: int
    retry: RetryPolicy
    grace_s: float
    state: JobState
    submitted_at_ms: int
    retries_left: int
    attempt: int = 0
    retry_no: int = 0  # retries since the submit or since a person's retry: sets the next pause
    not_before_ms: int = 0
    outcome: Outcome | None = None
    ended_at_ms: int = 0
    why: str = ""  # a clause about the outcome: "the directory /x does not exist"
    source: str = ""
    within_s: int = 0  # after a start its payload is gone by then; 0: nobody knows
    grown: bool = False  # `request` is not the spec's any more
    setbacks: int = 0  # attempts that ended for no fault of its own, and were made good
    retry_args: bytes | None = None  # instead of the spec's, by a person's retry
    begin_ms: int = 0
    last_start_ms: int = 0  # to be done by its deadline it must have started; 0: it has none
    checkpoint: int = 0  # as in the spec
    resume: bool = False  # it was asked to save its state, and has not succeeded since
    after: After = AT_ONCE  # with ids
    unmet: int = 0  # jobs that it comes after and that keep it waiting (core/links.py)
    place: float = 0  # among those of its priority; 0: its id (core/order.py)
    array: JobId = JobId(0)  # the id of the first element of its array; 0: it is of none
    rest: tuple[tuple[int, int], ...] = ()  # ids (core/spans.py)


class LeasePart(Struct, frozen=True, gc=False):
    device: str  # Device.key
    milli: int  # share in thousandths
    mib: int = 0  # memory promised on each of its GPUs; 0 where it is not known
    uuids: tuple[str, ...] = ()  # of its GPUs: the device may be called otherwise later


class Attempt(Struct, gc=False):
    """One try at running a job. Live from dispatch until its whole payload is gone."""

    job: JobId
    no: int
    phase: Phase
    lease: tuple[LeasePart, ...]
    boot_id: str  # of the boot it was dispatched under; under another it is never sent again
    dispatched_at_ms: int
    started_at_ms: int = 0
    pid: int = 0
    stop_grace_s: float | None = None  # of the stop that is on its way
    stop_why: str = ""  # of a stop that is no cancel: a key of setbacks.STOPS
    leaving: bool = False  # that stop asks it to save its state: it is queued again after any end
    paused_at_ms: int = 0  # of the pause that it is in
    paused_ms: int = 0  # all pauses before
    ended_at_ms: int = 0
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    why: str = ""
    rusage: Rusage | None = None
    oom: str = ""  # what it ran out of: "cuda", "host", or ""
    usage: Usage | None = None


class Usage(Struct):
    """What an attempt used of its GPUs, as far as looks have shown it (core/usage.py)."""

    energy_mj: int = 0
    peak_mib: int = 0  # on one GPU
    busy_ms: int = 0  # per cent of utilisation times milliseconds, over 100, all its GPUs together
    seen_ms: int = 0  # over how long that was looked at, all its GPUs together
    at_ms: int = 0  # of the last look
    idle_since_ms: int = 0  # its GPUs have done nothing since; 0: they do
    told: tuple[str, ...] = ()  # what was pointed out once: "wrong-gpu", "idle"
    counters: dict[str, int] = {}  # UUID -> millijoules at the last look
    base_mib: dict[str, int] = {}  # UUID -> memory that was in use by nobody when it was dispatched


class Rusage(Struct, frozen=True, gc=False):
    """getrusage(2) of the shell and the children it waited for."""

    user_s: float = 0.0
    system_s: float = 0.0
    max_rss_kib: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    in_blocks: int = 0
    out_blocks: int = 0


class Device(Struct, frozen=True, gc=False):
    """A GPU, a fixed group of GPUs leased as one, or the lane `cpu` (no ids).

    The key is what people call it: of a detected GPU its UUID, else the configured ids, joined by
    commas. `ids` is what CUDA_VISIBLE_DEVICES gets; `slots` is how many jobs of one slot share it.
    """

    key: str
    ids: tuple[str, ...]
    slots: int = 1
    uuids: tuple[str, ...] = ()  # of its GPUs; none: nothing can be seen of it
    model: str = ""  # "" not known
    memory_mib: int = 0  # of each of its GPUs; 0: not known
    maker: str = "nvidia"  # or "amd": says which variables a job gets
    mig: bool = False  # an instance of a GPU: no process can have two
    guest: bool = False  # somebody else's, given back when the owner comes
    distance: dict[str, int] = {}  # to other GPUs, by UUID: core/sight.py, GpuInfo
    problem: str = ""  # a clause: it is there, or was named, and the driver cannot say what it is

    @property
    def label(self) -> str:
        """For people: its indexes where it has some."""
        return ",".join(self.ids) or self.key

    @property
    def slot_milli(self) -> int:
        return FULL_MILLI // self.slots


class Cursor(Struct, frozen=True, gc=False):
    """How far an append-only source has been read: opaque to the core, committed with the jobs."""

    source: str
    position: str  # the source's own JSON


class Story(Struct, frozen=True, gc=False):
    """One event of one job's story. `job` 0: about gpud itself; `count` > 1: ids from `job` on."""

    job: JobId
    attempt: int
    kind: str
    at_ms: int
    detail: dict[str, object] = {}
    count: int = 1
