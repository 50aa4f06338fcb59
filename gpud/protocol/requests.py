"""What a client may ask: one struct per request, tagged by `type`. Unknown fields are errors.

`id` is the client's number for the request; every reply carries it. `jobs` is a list of selectors
(protocol/selectors.py). Field for field the same as docs/protocol.md; golden files in
tests/protocol/golden hold examples that are never edited, only added to.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from gpud.protocol.text import Text

Selector = int | str


class JobFields(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job as a client writes it. Exactly one of `command` (shell text) and `argv`.

    In a submit's `common` they are the defaults of every job of the submit; what neither says
    comes from the daemon's `[defaults]`. `env` replaces what was there, `env_add` adds to it.
    """

    command: Text | UnsetType = UNSET
    argv: tuple[Text, ...] | UnsetType = UNSET
    shell: tuple[Text, ...] | UnsetType = UNSET
    setup: Text | UnsetType = UNSET
    cwd: Text | UnsetType = UNSET
    env: tuple[Text, ...] | UnsetType = UNSET  # "K=V"; the whole environment
    env_add: tuple[Text, ...] | UnsetType = UNSET  # "K=V"; over `env`
    umask: int | UnsetType = UNSET
    name: str | UnsetType = UNSET
    # 2; 0.5: a share of one; null: one slot of any device
    gpus: int | float | UnsetType | None = UNSET
    vram_mib: int | Literal["auto"] | UnsetType = UNSET  # free on each GPU, and reserved
    gpu_model: str | UnsetType = UNSET  # a part of the model's name, in any case
    exclusive: bool | UnsetType = UNSET  # nobody beside it on its GPUs
    priority: int | Literal["urgent"] | UnsetType = UNSET  # higher first
    retries: int | UnsetType = UNSET
    backoff_s: float | UnsetType = UNSET
    backoff_max_s: float | UnsetType = UNSET
    retry_args: Text | UnsetType = UNSET
    # failed, killed (or signal), timed-out, lost, oom, exit statuses as numbers
    retry_on: tuple[str | int, ...] | UnsetType = UNSET
    time_limit_s: float | UnsetType | None = UNSET
    begin_ms: int | UnsetType = UNSET  # milliseconds since 1970: not before; 0: at once
    deadline_ms: int | UnsetType = UNSET  # done by then; 0: whenever
    grace_s: float | UnsetType = UNSET
    linger_s: float | Literal["wait"] | UnsetType = UNSET
    # "SIGUSR1", "USR1" or 10: the signal at which it saves its state and leaves; "none"
    checkpoint: str | int | UnsetType = UNSET
    held: bool | UnsetType = UNSET
    array: str | UnsetType = UNSET  # indices: "0-99", "0,2,5-9%4": a job for each
    max_fails: int | UnsetType = UNSET  # so many failed elements hold the rest; 0: none do
    group: str | UnsetType = UNSET  # "": none
    labels: dict[str, str] | UnsetType = UNSET  # over those there are
    # Selectors: jobs that must have succeeded before, and jobs that must have ended. `@` is the job
    # before this one, in `common` the last one before the submit.
    after: tuple[Selector, ...] | UnsetType = UNSET
    after_any: tuple[Selector, ...] | UnsetType = UNSET
    # What becomes of it when one of these can no longer succeed.
    after_failed: Literal["cancel", "wait"] | UnsetType = UNSET


class RequestBase(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    omit_defaults=True,
):
    id: int


class Ping(RequestBase, frozen=True, tag="ping"):
    pass


class Submit(RequestBase, frozen=True, tag="submit"):
    """One job in `job`, or `count` job lines (JobFields) that follow this line."""

    job: JobFields | None = None
    count: int = 0
    common: JobFields | None = None
    key: str = ""


class Status(RequestBase, frozen=True, tag="status"):
    pass


class Ls(RequestBase, frozen=True, tag="ls"):
    """`jobs` empty: what is not done, after the `recent` last ended ones, `limit` in all: 0 is the
    most there can be in one answer. `after` goes with `jobs`: only those with a higher id, the next
    page."""

    jobs: tuple[Selector, ...] = ()
    recent: int = 10
    limit: int = 50
    after: int = 0


class Show(RequestBase, frozen=True, tag="show"):
    """An array that is named by its id is summed up; with `elements` each job is told of. `audit`:
    who has asked for what about them, too."""

    jobs: tuple[Selector, ...]
    elements: bool = False
    audit: bool = False


class Why(RequestBase, frozen=True, tag="why"):
    """`verbose`: what each device is to the job, too; for one job."""

    jobs: tuple[Selector, ...]
    verbose: bool = False


class Wait(RequestBase, frozen=True, tag="wait"):
    jobs: tuple[Selector, ...]


class ChangeBase(RequestBase, frozen=True, kw_only=True):
    """What changes jobs. What falls under a range, a name, a state or the like is only meant if it
    is the caller's, in system mode; with `all_users`, which is for administrators, whosever it
    is."""

    all_users: bool = False


class Cancel(ChangeBase, frozen=True, tag="cancel"):
    jobs: tuple[Selector, ...]
    grace_s: float | None = None


class Retry(ChangeBase, frozen=True, tag="retry"):
    """`args`: at the end of their commands from now on, in the place of `retry_args`."""

    jobs: tuple[Selector, ...]
    args: Text | None = None


class Hold(ChangeBase, frozen=True, tag="hold"):
    jobs: tuple[Selector, ...]


class Release(ChangeBase, frozen=True, tag="release"):
    jobs: tuple[Selector, ...]


class Edit(ChangeBase, frozen=True, tag="edit"):
    """`change`: what they say from now on; all else stays. Not `held`. `@` in `after` and
    `after_any` is the last job there is."""

    jobs: tuple[Selector, ...]
    change: JobFields


class Move(ChangeBase, frozen=True, tag="move"):
    """In their order, directly `before` or `after` one other job that waits, or `to` an end."""

    jobs: tuple[Selector, ...]
    before: Selector | None = None
    after: Selector | None = None
    to: Literal["first", "last"] | None = None


class Swap(RequestBase, frozen=True, tag="swap"):
    """Two jobs that wait: each gets the other's place and priority."""

    jobs: tuple[Selector, ...]


class Pause(ChangeBase, frozen=True, tag="pause"):
    jobs: tuple[Selector, ...]


class Continue(ChangeBase, frozen=True, tag="continue"):
    jobs: tuple[Selector, ...]


class Checkpoint(ChangeBase, frozen=True, tag="checkpoint"):
    """`grace_s`: in the place of the job's."""

    jobs: tuple[Selector, ...]
    grace_s: float | None = None


class Drain(RequestBase, frozen=True, tag="drain"):
    pass


class Undrain(RequestBase, frozen=True, tag="undrain"):
    pass


class Gpus(RequestBase, frozen=True, tag="gpus"):
    pass


class Heal(RequestBase, frozen=True, tag="heal"):
    """Quarantined GPUs work again: `gpus` are their ids, keys, UUIDs or beginnings of UUIDs that
    only one GPU has; none: all of them."""

    gpus: tuple[str, ...] = ()


class Groups(RequestBase, frozen=True, tag="groups"):
    pass


LimitWord = int | Literal["none", "default"]  # default: as configured


class Group(RequestBase, frozen=True, tag="group"):
    """A word about a group that goes before the configuration; left out: as before."""

    name: str
    limit: LimitWord | UnsetType = UNSET  # of running jobs
    max_fails: LimitWord | UnsetType = UNSET  # after so many the rest is held


class Users(RequestBase, frozen=True, tag="users"):
    pass


class Sources(RequestBase, frozen=True, tag="sources"):
    pass


class SourceStop(RequestBase, frozen=True, tag="source-stop"):
    name: str


class SourceStart(RequestBase, frozen=True, tag="source-start"):
    name: str


class Metrics(RequestBase, frozen=True, tag="metrics"):
    pass


class Prune(RequestBase, frozen=True, tag="prune"):
    """Forget jobs that ended longer ago than `older_s` seconds (null: as configured, then by number
    and size too), with their logs; `logs_only`: their logs alone. `dry_run`: only count."""

    older_s: float | None = None
    logs_only: bool = False
    dry_run: bool = False


class Follow(RequestBase, frozen=True, tag="follow"):
    """Events after `since` (a sequence number; null: from now on), until the client goes.

    With `jobs` (ids) only those jobs' events. `until_done` ends the stream after the last of
    `jobs` is done.
    """

    since: int | None = None
    jobs: tuple[int, ...] = ()
    until_done: bool = False


class Reload(RequestBase, frozen=True, tag="reload"):
    pass


AnyRequest = (
    Ping
    | Submit
    | Status
    | Ls
    | Show
    | Why
    | Wait
    | Cancel
    | Retry
    | Hold
    | Release
    | Edit
    | Move
    | Swap
    | Pause
    | Continue
    | Checkpoint
    | Drain
    | Undrain
    | Gpus
    | Heal
    | Groups
    | Group
    | Users
    | Sources
    | SourceStop
    | SourceStart
    | Metrics
    | Follow
    | Reload
    | Prune
)
