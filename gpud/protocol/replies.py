"""What the daemon answers: one struct per reply, tagged by `type`; also the shapes of `--json`.

Clients ignore fields they do not know; fields that have come later are left out while they say
nothing (their default). Times are milliseconds since 1970 (0: not yet), ids are
numbers, texts that are not UTF-8 are `{"b64": …}`.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from gpud.protocol.belonging import GroupView, UserView
from gpud.protocol.gpus import GpuView
from gpud.protocol.text import Text

MOST_OF_COMMAND = 1000  # characters in lists; a longer one ends in "…" there


class Greeting(Struct, frozen=True):
    """The first line on every connection."""

    gpud: str  # version
    protocol: int
    features: tuple[str, ...]
    host: str


class AttemptView(Struct, frozen=True, omit_defaults=True):
    attempt: int
    phase: str  # "" once ended
    outcome: str  # "" while live
    exit_code: int | None
    signal: int | None
    why: str
    lease: tuple[str, ...]  # device keys, with the share where it is not whole: "0", "1:500"
    pid: int
    dispatched_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    user_s: float | None
    system_s: float | None
    max_rss_kib: int | None
    log: str  # absolute path
    oom: str = ""  # it ran out of memory: "cuda" (of a GPU), "host"
    energy_j: float | None = None  # its share of what its GPUs took; null: nobody could look
    peak_vram_mib: int | None = None  # on one GPU
    gpu_util: int | None = None  # per cent, the mean
    rule: str = ""  # why it was placed where it was, as a clause
    log_gone_at_ms: int = 0  # when the log was removed; 0: it was not
    log_cut: tuple[int, int] | None = None  # these bytes of it were cut out: first, end


class JobView(Struct, frozen=True, omit_defaults=True):
    """A job as `ls` shows it. Of the last attempt: exit_code, signal, lease and the two times.

    `command`: only in `show` more than its first MOST_OF_COMMAND characters.
    """

    id: int
    name: str
    state: str
    phase: str  # only while active
    outcome: str  # only when done
    reason: str  # only while queued or held: why it waits; or paused: since when, and what it holds
    why: str  # only when done: a clause about the outcome, or ""
    exit_code: int | None
    signal: int | None
    attempt: int
    retries_left: int
    priority: int
    gpus: int | float | None  # 2, 0.5 (a share of one), or null: one slot of any device
    lease: tuple[str, ...]
    command: Text
    source: str
    where: str
    submitted_at_ms: int
    started_at_ms: int
    ended_at_ms: int
    not_before_ms: int
    vram_mib: int | str = 0  # asked for on each GPU; "auto"
    gpu_model: str = ""
    exclusive: bool = False
    # Of all attempts: null where nobody could look at the GPUs.
    energy_j: float | None = None
    peak_vram_mib: int | None = None
    gpu_util: int | None = None  # of the last attempt
    checkpoint: str = ""  # the signal at which it saves its state and leaves: "SIGUSR1"
    paused_at_ms: int = 0  # only while paused
    # Of an array: the id of its first element, and the indices that this is about. `count` > 1:
    # so many elements that are as they were submitted; `id` is the first of them.
    array: int = 0
    indices: str = ""
    count: int = 1
    ids: tuple[tuple[int, int], ...] = ()  # of many: first and last of each run
    group: str = ""
    labels: dict[str, str] = {}
    # Of a daemon that several users share:
    user: str = ""  # whose it is
    foreign: bool = False  # it is not the caller's
    hidden: bool = False  # and its command, its paths and what it says are not for the caller


class EventView(Struct, frozen=True):
    """One event of the story. `count` > 1: it is about the ids from `job` to `job + count - 1`."""

    seq: int
    at_ms: int
    job: int
    attempt: int
    kind: str
    detail: dict[str, object]
    count: int = 1


class AuditView(Struct, frozen=True):
    """Somebody asked for something, and got it."""

    at_ms: int
    verb: str  # "cancel", "submit", "edit"
    uid: int  # as the kernel said
    pid: int


class JobDetail(Struct, frozen=True, omit_defaults=True):
    job: JobView
    argv: tuple[Text, ...] | None
    shell: tuple[Text, ...]
    setup: Text
    cwd: Text
    env_names: tuple[Text, ...]
    retries: int
    backoff_s: float
    backoff_max_s: float
    retry_args: Text
    time_limit_s: float | None
    grace_s: float
    linger_s: float | None
    uid: int
    attempts: tuple[AttemptView, ...]
    story: tuple[EventView, ...]
    retry_on: tuple[str | int, ...] = ()
    usual_vram_mib: int | None = None  # what earlier jobs like this one took of a GPU at most
    after: tuple[str, ...] = ()  # ids and ranges: "12", "14-20"
    after_any: tuple[str, ...] = ()
    after_failed: str = "cancel"  # or "wait"
    begin_ms: int = 0
    deadline_ms: int = 0
    audit: tuple[AuditView, ...] = ()  # where it was asked for


class ArrayView(Struct, frozen=True, omit_defaults=True):
    """An array, summed up. `example`: its first element, which says what all of them run."""

    array: int
    size: int
    indices: str
    counts: dict[str, int]  # state, or outcome -> elements
    example: JobDetail
    at_most: int = 0
    max_fails: int = 0
    bad: str = ""  # indices of those that ended, and not as anybody wanted; the first ones


class ReasonView(Struct, frozen=True, omit_defaults=True):
    job: int
    state: str
    reason: str  # a sentence, whatever the state
    # Asked for by `verbose`:
    devices: tuple[str, ...] = ()  # sentences: what each device is to the job, until it is done
    attempts: tuple[AttemptView, ...] = ()
    # Of elements of an array:
    array: int = 0
    indices: str = ""
    count: int = 1
    # Of a job that waits, as far as it can be known (core/forecast.py):
    start_ms: int = 0  # about when it starts
    after: tuple[int, ...] = ()  # the jobs whose ends make room for it then
    assumes: tuple[str, ...] = ()  # what that rests on: "limits", "usual", "release", "undrain"
    later_than_ms: int = 0  # it starts later than that: nobody has looked further
    unknown: str = ""  # a clause: why nobody knows when it starts
    never: str = ""  # a clause: why it will not start
    starts_now: tuple[str, ...] = ()  # "with 2 GPUs": had it asked for that, it could start now


class EndView(Struct, frozen=True):
    job: int
    outcome: str
    exit_code: int | None
    signal: int | None


class RefusedView(Struct, frozen=True):
    job: int
    message: str


class PriorityView(Struct, frozen=True):
    job: int
    priority: int


class SourceView(Struct, frozen=True):
    name: str
    kind: str
    target: str  # path or address
    stopped: bool
    problem: str
    note: str
    last_read_at_ms: int
    taken: int  # entries taken so far
    waiting: int  # of those, jobs that are not done


class Reply(Struct, frozen=True, kw_only=True, tag_field="type"):
    id: int


class Error(Reply, frozen=True, tag="error"):
    kind: str  # refused, usage, not-found, storage, protocol, config
    message: str
    hint: str = ""


class Pong(Reply, frozen=True, tag="pong"):
    gpud: str
    host: str
    pid: int
    started_at_ms: int


class Submitted(Reply, frozen=True, tag="submitted"):
    first: int
    count: int
    again: bool = False
    arrays: tuple[tuple[int, int], ...] | UnsetType = UNSET  # first and last id of each, if any
    note: str | UnsetType = UNSET  # a sentence: they were held at once, and why


class StatusReply(Reply, frozen=True, tag="status"):
    gpud: str
    host: str
    pid: int
    started_at_ms: int
    now_ms: int
    state_dir: str
    socket: str
    draining: bool
    queued: int
    held: int
    active: int
    done: dict[str, int]  # outcome -> how many, of all that is kept
    gpus: tuple[GpuView, ...]
    sources: tuple[SourceView, ...]
    running: tuple[JobView, ...]
    recent: tuple[JobView, ...]
    problems: tuple[str, ...]  # sentences: what is wrong now


class JobsReply(Reply, frozen=True, tag="jobs"):
    jobs: tuple[JobView, ...]
    more: int  # matched, but past the limit


class Shown(Reply, frozen=True, tag="shown"):
    jobs: tuple[JobDetail, ...]
    arrays: tuple[ArrayView, ...] | UnsetType = UNSET


class Reasons(Reply, frozen=True, tag="reasons"):
    reasons: tuple[ReasonView, ...]


class Waited(Reply, frozen=True, tag="waited"):
    jobs: tuple[EndView, ...]


class Changed(Reply, frozen=True):
    """The common shape of the replies to all that changes jobs."""

    jobs: tuple[int, ...]
    refused: tuple[RefusedView, ...] = ()


class Cancelled(Changed, frozen=True, tag="cancelled"):
    pass


class Retried(Changed, frozen=True, tag="retried"):
    pass


class HeldReply(Changed, frozen=True, tag="held"):
    pass


class Released(Changed, frozen=True, tag="released"):
    pass


class Edited(Changed, frozen=True, tag="edited"):
    """`jobs`: those that say something else now than before."""


class Moved(Changed, frozen=True, tag="moved"):
    priorities: tuple[PriorityView, ...] = ()  # of jobs that got another one by it


class Swapped(Changed, frozen=True, tag="swapped"):
    priorities: tuple[PriorityView, ...] = ()  # the same


class Paused(Changed, frozen=True, tag="paused"):
    pass


class Continued(Changed, frozen=True, tag="continued"):
    pass


class Checkpointed(Changed, frozen=True, tag="checkpointed"):
    """They have been asked; each leaves within its grace."""


class Drained(Reply, frozen=True, tag="drained"):
    active: int  # jobs still active


class Undrained(Reply, frozen=True, tag="undrained"):
    pass


class GpusReply(Reply, frozen=True, tag="gpus", omit_defaults=True):
    gpus: tuple[GpuView, ...]
    note: str = ""  # a sentence: what of the GPUs cannot be seen, and why


class Healed(Reply, frozen=True, tag="healed", omit_defaults=True):
    count: int  # of GPUs that were quarantined
    afresh: bool = False  # a GPU was named, or one has a problem: the driver is asked about it


class GroupsReply(Reply, frozen=True, tag="groups"):
    groups: tuple[GroupView, ...]


class GroupRuled(Reply, frozen=True, tag="group"):
    group: GroupView  # as it is now


class UsersReply(Reply, frozen=True, tag="users"):
    users: tuple[UserView, ...]
    half_life_s: float  # of `used_s`; 0: no fair share


class SourcesReply(Reply, frozen=True, tag="sources"):
    sources: tuple[SourceView, ...]


class SourceStopped(Reply, frozen=True, tag="source-stopped"):
    name: str


class SourceStarted(Reply, frozen=True, tag="source-started"):
    name: str


class MetricsReply(Reply, frozen=True, tag="metrics"):
    text: str  # OpenMetrics, to its "# EOF"


class PrunedReply(Reply, frozen=True, tag="pruned"):
    """What went, or would go; `log_bytes` of all logs that went, those of jobs that went too."""

    jobs: int
    logs: int  # jobs whose logs went while they stay
    log_bytes: int
    runs: int  # directories of `gpud run`


class Following(Reply, frozen=True, tag="following"):
    since: int


class EventReply(Reply, frozen=True, tag="event"):
    event: EventView


class End(Reply, frozen=True, tag="end"):
    pass


class Reloaded(Reply, frozen=True, tag="reloaded"):
    changes: tuple[str, ...]  # sentences: what is different now; what needs a restart
