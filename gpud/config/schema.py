"""Every configuration key, its type, default and meaning: the one place where keys are defined.

`config/load.py` turns TOML into these structs and reports every problem at once;
`config.example.toml` shows each key, and a test holds it against this file. Durations are written
as numbers of seconds or as text ("90s", "10m", "2h30m", "1d").
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field


class JobDefaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job gets when neither its entry nor its source says otherwise."""

    shell: tuple[str, ...] = ("/bin/sh", "-c")
    setup: str = ""  # a line run before each command, in the same shell
    retries: int = 0
    backoff_s: float = 10.0
    backoff_max_s: float = 600.0
    time_limit_s: float | None = None
    grace_s: float = 10.0
    linger_s: float | Literal["wait"] = 10.0


class QueueFileSource(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="queue-file",
):
    """`[source.NAME]` with `type = "queue-file"`: jobs are lines appended to a file."""

    path: str
    start: Literal["beginning", "end"] = "beginning"  # what lines count at the file's first sight
    poll_s: float = 2.0  # how often to look where watching says nothing (network file systems)
    cwd: str | None = None  # default: the file's directory
    shell: tuple[str, ...] | None = None
    setup: str | None = None
    env: dict[str, str] = {}
    env_file: str | None = None
    gpus: int | None = None
    priority: int = 0
    retries: int | None = None
    backoff_s: float | None = None
    backoff_max_s: float | None = None
    time_limit_s: float | None = None
    grace_s: float | None = None
    linger_s: float | Literal["wait"] | None = None


SourceConfig = QueueFileSource  # a union once there are more


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[pool]`: what jobs run on."""

    gpus: tuple[str, ...] = ()  # as `--gpus`: "0", "1"; the same twice: two share it; "0,1": a pair
    cpu_slots: int | None = None  # jobs that ask for no GPU; default: the number of processors


class Log(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: what gpud itself says, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"  # auto: text on a terminal, else json


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state_dir: str | None = None
    socket: str | None = None
    cgroup: str | None = None  # a cgroup v2 directory to keep payloads in; default: if delegated
    pool: Pool = field(default_factory=Pool)
    defaults: JobDefaults = field(default_factory=JobDefaults)
    log: Log = field(default_factory=Log)
    source: dict[str, SourceConfig] = {}
