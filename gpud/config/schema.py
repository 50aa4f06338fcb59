"""Every configuration key, its type, default and meaning: the one place where keys are defined.

`config/load.py` turns TOML into these structs and reports every problem at once;
`config.example.toml` shows each key, and a test holds it against this file. Durations are written
as numbers of seconds or as text ("90s", "10m", "2h30m", "1d"): that is every number that is not a
whole one. Bounds (those of a job are in config/limits.py) and patterns are here and nowhere else;
`config/walk.py` reads them from here. Structs made in code are not checked against them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from gpud.config.belonging import (
    GROUP_PATTERN,
    GROUP_RULE,
    LABEL_KEY_PATTERN,
    LABEL_RULE,
    LABEL_VALUE_PATTERN,
)
from gpud.config.limits import (
    LONGEST_MODEL,
    LONGEST_S,
    MOST_GPUS,
    MOST_KEPT,
    MOST_LIMIT,
    MOST_PRIORITY,
    MOST_RETRIES,
    MOST_SLOTS,
    MOST_WEIGHT,
)

Seconds = Annotated[float, Meta(ge=0, le=LONGEST_S)]
Pause = Annotated[float, Meta(ge=0.05, le=LONGEST_S)]  # between two looks: never a busy loop
TimeLimit = Annotated[float, Meta(gt=0, le=LONGEST_S)]
# "12G", "800M"; in memory MiB, 0: none.
Size = Annotated[int, Meta(ge=0, extra={"size": True})]
Vram = Size | Literal["auto"]
# Of a model's name: a part of it, on one line.
Model = Annotated[str, Meta(max_length=LONGEST_MODEL, extra={"line": True})]
# A whole number, or a share of one GPU.
Gpus = Annotated[float, Meta(ge=0, le=MOST_GPUS, extra={"gpus": True})]
# A signal that a program can catch: "SIGUSR1", "USR1" or 10; in memory its number, 0: "none".
Signal = Annotated[int, Meta(ge=0, extra={"signal": True})]
Retries = Annotated[int, Meta(ge=0, le=MOST_RETRIES)]
Priority = Annotated[int, Meta(ge=-MOST_PRIORITY, le=MOST_PRIORITY, extra={"priority": True})]
# `~` and `$VARIABLES` are expanded; relative to the directory of the configuration file.
PathText = Annotated[str, Meta(min_length=1, extra={"path": True})]
Shell = Annotated[
    tuple[Annotated[str, Meta(min_length=1)], ...],
    Meta(min_length=1, description='like ["/bin/sh", "-c"]; the command comes after it'),
]
# config/listen.py: "127.0.0.1:9464", or a path, which is expanded like the others.
ListenText = Annotated[str, Meta(min_length=1, max_length=4096, extra={"listen": True})]
# The items may be written as whole numbers, as people do: [0, 1].
GpuWords = Annotated[
    tuple[str, ...],
    Meta(
        min_length=1,
        description='like [0, 1]; leave it out to use every GPU, or write ["none"]',
        extra={"numbers": True},
    ),
]
# The ids of `gpus`, or UUIDs.
GuestWords = Annotated[
    tuple[Annotated[str, Meta(min_length=1)], ...],
    Meta(description="like [2, 3]", extra={"numbers": True}),
]
GpuName = Annotated[str, Meta(min_length=1)]
Programs = tuple[Annotated[str, Meta(min_length=1)], ...]
Slots = Annotated[int, Meta(ge=0, le=MOST_SLOTS)]
ManySlots = Annotated[int, Meta(ge=1, le=MOST_SLOTS)]
ExitStatus = Annotated[int, Meta(ge=1, le=255)]
RetryOn = Annotated[
    tuple[Literal["failed", "killed", "signal", "timed-out", "lost", "oom"] | ExitStatus, ...],
    Meta(min_length=1),
]
SourceName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z",
        description='the name of a source has letters, digits, ".", "_" and "-", 64 at most',
    ),
]
EnvName = Annotated[
    str,
    Meta(
        pattern=r"^[^=\x00]+\Z",
        description='the name of a variable is not empty and has no "="',
        extra={"secret": True},
    ),
]
# Of jobs that run at a time; and of those that fail, 0: however many.
Limit = Annotated[int, Meta(ge=0, le=MOST_LIMIT)]
ManyJobs = Annotated[int, Meta(ge=0, le=MOST_KEPT)]
Weight = Annotated[float, Meta(gt=0, le=MOST_WEIGHT, extra={"number": True})]
# A name of `[windows]`, or what could stand there.
WindowText = Annotated[str, Meta(min_length=1, max_length=1000, extra={"line": True})]
WindowName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}\Z",
        description='the name of a window begins with a letter and has letters, digits, ".", "_" '
        'and "-", 64 at most',
    ),
]
GroupName = Annotated[str, Meta(pattern=GROUP_PATTERN, description=GROUP_RULE)]
LabelKey = Annotated[str, Meta(pattern=LABEL_KEY_PATTERN, description=LABEL_RULE)]
LabelValue = Annotated[str, Meta(pattern=LABEL_VALUE_PATTERN, description=LABEL_RULE)]
Label = Annotated[
    str,
    Meta(
        pattern=LABEL_KEY_PATTERN[:-2] + "=" + LABEL_VALUE_PATTERN[1:],
        description=f'{LABEL_RULE}; in quotes: [labels."sweep=lr"]',
    ),
]
UserName = Annotated[
    str,
    Meta(
        pattern=r"^(\*|[^\s:*]{1,64})\Z",
        description='write the name of a user, its number, or "*" for every other user',
    ),
]
AccountName = Annotated[
    str,
    Meta(
        pattern=r"^(\*|[^\s:*]{1,64})\Z",
        description="write the name of a user or of a group, or its number",
    ),
]
# Never shown: not when it is wrong, and not what somebody wrote beside it by mistake.
EnvValue = Annotated[str, Meta(extra={"secret": True})]


class JobDefaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job gets when neither its entry nor its source says otherwise."""

    shell: Shell = ("/bin/sh", "-c")
    setup: str = ""  # a line run before each command, in the same shell
    retries: Retries = 0
    backoff_s: Seconds = 10.0
    backoff_max_s: Seconds = 600.0
    retry_args: str = ""  # added to the command from the second attempt on
    # And "oom": out of memory; "signal": the same as killed; exit statuses as numbers.
    retry_on: RetryOn = ("failed", "killed", "timed-out", "lost")
    time_limit_s: TimeLimit | None = None
    grace_s: Seconds = 10.0
    linger_s: Seconds | Literal["wait"] = 10.0
    checkpoint: Signal = 0  # at which a job saves its state and leaves
    group: GroupName | None = None
    labels: dict[LabelKey, LabelValue] = {}


class QueueFileSource(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="queue-file",
):
    """`[source.NAME]` with `type = "queue-file"`: jobs are lines appended to a file."""

    path: PathText
    user: AccountName | None = None  # as whom its jobs run, in system mode
    start: Literal["beginning", "end"] = "beginning"  # what lines count at the file's first sight
    poll_s: Pause = 2.0  # how often to look where watching says nothing (network file systems)
    cwd: PathText | None = None  # default: the file's directory
    shell: Shell | None = None
    setup: str | None = None
    env: dict[EnvName, EnvValue] = {}
    env_file: PathText | None = None
    gpus: Gpus | None = None
    vram: Vram = 0  # free on each GPU, and reserved
    gpu_model: Model = ""  # a part of the model's name, in any case
    exclusive: bool = False  # nobody beside it on its GPUs
    priority: Priority = 0
    retries: Retries | None = None
    backoff_s: Seconds | None = None
    backoff_max_s: Seconds | None = None
    retry_args: str | None = None
    retry_on: RetryOn | None = None
    time_limit_s: TimeLimit | None = None
    grace_s: Seconds | None = None
    linger_s: Seconds | Literal["wait"] | None = None
    checkpoint: Signal | None = None
    group: GroupName | None = None
    labels: dict[LabelKey, LabelValue] = {}  # over those of [defaults]
    window: WindowText | None = None  # when its jobs may start


SourceConfig = QueueFileSource  # a union once there are more


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[pool]`: what jobs run on."""

    # config/gpu_words.py: "0", "1"; the same twice: two share it; "0,1": a pair; "none".
    # Empty, the default: what the NVIDIA driver finds.
    gpus: GpuWords = ()
    slots_per_gpu: ManySlots = 1  # so many jobs of one slot share a GPU
    # For jobs that ask for no GPU. Default: the number of processors.
    cpu_slots: Slots | None = None
    # What jobs are given in CUDA_VISIBLE_DEVICES: the index in PCI order, or the UUID.
    visible: Literal["index", "uuid"] = "index"
    # Of GPUs that no NVIDIA driver can be asked about.
    maker: Literal["nvidia", "amd"] = "nvidia"  # amd: jobs get ROCm's variables
    model: Model = ""
    memory: Size = 0  # of each GPU
    # Somebody else's GPUs: used while nobody is there, given back when somebody comes.
    guests: GuestWords = ()
    respect_others: bool = True  # a GPU that another's process uses takes no job
    tolerance: Size = 0  # a process with no more memory than this does not count
    ignore: Programs = ()  # programs whose processes do not count, beside desktops and MPS
    release_wait_s: Seconds = 60.0  # for the memory of an ended job, before it is a fault
    idle_after_s: Seconds = 1800.0  # a job whose GPUs did nothing for so long is pointed out; 0: no
    stop_idle: bool = False  # and stopped
    # When a GPU takes new jobs, by the names above.
    windows: dict[GpuName, WindowText] = {}


class Group(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[groups.NAME]`; what a person says by `gpuctl group` goes before it."""

    limit: Limit | None = None  # of running jobs
    max_fails: Limit = 0  # after so many the rest is held; 0: however many
    window: WindowText | None = None


class User(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[users.NAME]`; what it does not say, `[users."*"]` says."""

    limit: Limit | None = None
    weight: Weight | None = None  # in a fair share; 1 where nobody says otherwise
    window: WindowText | None = None


class LabelRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[labels."KEY=VALUE"]`."""

    limit: Limit | None = None
    window: WindowText | None = None


class FairShare(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[fair_share]`: of equal priority, who has used less of the GPUs goes first."""

    half_life_s: Seconds = 0.0  # of what was used; 0: no fair share


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[retention]`: how much of the past is kept. Of jobs that are not done, everything is."""

    jobs_s: Seconds = 31_536_000.0  # after their end, with their logs; 0: for ever
    jobs: ManyJobs = 1_000_000  # that are done; 0: however many
    logs_s: Seconds = 0.0  # after the job's end; 0: as long as the job
    logs_size: Size = 0  # of all logs together; 0: however large
    log_cap: Size = 20_480  # of one log; it loses its middle then; 0: however large


class Access(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[access]`: one person's daemon, or one for all users of the machine."""

    mode: Literal["private", "system"] = "private"
    # In system mode. Groups by name or number; "*": every user of the machine.
    group: AccountName = "gpud"  # who may use gpud
    admins: AccountName | None = None  # who may do everything; default: root alone
    show_commands: Literal["owner", "all"] = "owner"  # who sees commands and environments' names
    # Of each user who is no administrator:
    max_priority: Priority = 0
    max_queued: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000  # jobs that are not done
    max_submits_per_s: Annotated[float, Meta(gt=0, le=100_000, extra={"number": True})] = 20.0
    max_submit: Size = 64  # of all jobs of one submit
    max_connections: Annotated[int, Meta(ge=1, le=500)] = 100


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: what gpud itself says, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"  # auto: text on a terminal, else json


class Metrics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[metrics]`: where they are offered to Prometheus and the like, besides gpuctl metrics."""

    listen: ListenText | None = None


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole document."""

    state_dir: PathText | None = None
    socket: PathText | None = None
    cgroup: PathText | None = None  # a cgroup v2 directory for payloads; default: if delegated
    pool: Pool = field(default_factory=Pool)
    defaults: JobDefaults = field(default_factory=JobDefaults)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    retention: Retention = field(default_factory=Retention)
    access: Access = field(default_factory=Access)
    windows: dict[WindowName, WindowText] = {}  # config/windows.py
    groups: dict[GroupName, Group] = {}
    users: dict[UserName, User] = {}
    labels: dict[Label, LabelRule] = {}
    fair_share: FairShare = field(default_factory=FairShare)
    source: dict[SourceName, SourceConfig] = {}
