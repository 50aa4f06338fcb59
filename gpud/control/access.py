"""Who may ask for what: one table, and the rules that go with it. Pure.

Called by control/guard.py for every request, and by nobody else; so this is the one place where
somebody is refused for who they are. Rule 1: every request type has its line in `RIGHTS`; one that
has none is refused to everybody but administrators. Rule 2: what a caller is comes from the kernel
alone. Rule 3: in a daemon of one person (`system` is False) who is let in may do everything: that
is this person, or root.
"""

from __future__ import annotations

import enum

from msgspec import UNSET, Struct

from gpud.config.limits import MOST_PRIORITY
from gpud.protocol import requests
from gpud.protocol.requests import RequestBase

ROOT = 0


class Caller(Struct, frozen=True):
    """Who is at the other end, as the kernel says (SO_PEERCRED, SO_PEERGROUPS)."""

    uid: int
    gids: frozenset[int] = frozenset()
    pid: int = 0


class Policy(Struct, frozen=True):
    """What of `[access]` the control server needs to know; the limits are each user's."""

    system: bool = False
    group: int | None = None  # who may open the socket; None: everybody
    admins: int | None = None  # None: root alone
    show_commands: bool = False  # to everybody
    max_priority: int = MOST_PRIORITY
    max_queued: int = 0  # 0: no limit, as in all of these
    max_submits_per_s: float = 0
    max_submit_bytes: int = 0
    max_connections: int = 0


class Right(enum.Enum):
    EVERYBODY = "everybody"  # who may use gpud at all
    OWNER = "owner"  # of the jobs that it is about
    ADMINISTRATOR = "administrator"


RIGHTS: dict[type[RequestBase], Right] = {
    requests.Ping: Right.EVERYBODY,
    requests.Submit: Right.EVERYBODY,
    requests.Status: Right.EVERYBODY,
    requests.Ls: Right.EVERYBODY,
    requests.Show: Right.EVERYBODY,
    requests.Why: Right.EVERYBODY,
    requests.Wait: Right.EVERYBODY,
    requests.Follow: Right.EVERYBODY,
    requests.Gpus: Right.EVERYBODY,
    requests.Groups: Right.EVERYBODY,
    requests.Users: Right.EVERYBODY,
    requests.Sources: Right.EVERYBODY,
    requests.Metrics: Right.EVERYBODY,
    requests.Cancel: Right.OWNER,
    requests.Retry: Right.OWNER,
    requests.Hold: Right.OWNER,
    requests.Release: Right.OWNER,
    requests.Edit: Right.OWNER,
    requests.Move: Right.OWNER,
    requests.Swap: Right.OWNER,
    requests.Pause: Right.OWNER,
    requests.Continue: Right.OWNER,
    requests.Checkpoint: Right.OWNER,
    requests.Drain: Right.ADMINISTRATOR,
    requests.Undrain: Right.ADMINISTRATOR,
    requests.Heal: Right.ADMINISTRATOR,
    requests.Group: Right.ADMINISTRATOR,  # what only asks how it stands: EVERYBODY
    requests.SourceStop: Right.ADMINISTRATOR,
    requests.SourceStart: Right.ADMINISTRATOR,
    requests.Reload: Right.ADMINISTRATOR,
    requests.Prune: Right.ADMINISTRATOR,
}


def right_of(request: RequestBase) -> Right:
    if isinstance(request, requests.Group) and request.limit is request.max_fails is UNSET:
        return Right.EVERYBODY
    if getattr(request, "all_users", False):
        return Right.ADMINISTRATOR
    return RIGHTS.get(type(request), Right.ADMINISTRATOR)


def may_connect(policy: Policy, caller: Caller, daemon_uid: int) -> bool:
    if caller.uid in (ROOT, daemon_uid):
        return True
    return policy.system and (policy.group is None or policy.group in caller.gids)


def is_administrator(policy: Policy, caller: Caller) -> bool:
    if not policy.system or caller.uid == ROOT:
        return True
    return policy.admins is not None and policy.admins in caller.gids


def may(policy: Policy, caller: Caller, request: RequestBase, owner: int | None = None) -> bool:
    """Whether the caller may ask for this. `owner`: the user of a job that it is about; None:
    it is about none, or none is known yet."""
    match right_of(request):
        case Right.EVERYBODY:
            return True
        case Right.OWNER:
            return owner in (None, caller.uid) or is_administrator(policy, caller)
        case Right.ADMINISTRATOR:
            return is_administrator(policy, caller)


def may_see(policy: Policy, caller: Caller, owner: int) -> bool:
    """The command of a job, its environment's names, its paths and what became of it in words."""
    return policy.show_commands or owner == caller.uid or is_administrator(policy, caller)
