"""The user that a job runs as, from the password database, looked up when an attempt starts.

Called by executors/runner.py, in system mode only. What PAM would add (limits.conf, a session) is
not applied: docs/security.md.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from time import monotonic

from msgspec import Struct

from gpud.errors import GpudError

PATH = b"/usr/local/bin:/usr/bin:/bin"
NO_SHELLS = frozenset(("nologin", "false"))  # of accounts that are closed, or of a service
KEPT_S = 2.0  # a burst of starts asks the database, which may be on the network, once


class Account(Struct, frozen=True):
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def defaults(self, env: bytes) -> list[bytes]:
        """`K=V` of what an environment (`K=V` joined by NUL) has to have and lacks."""
        there = b"\0" + env
        found = {
            b"HOME": os.fsencode(self.home),
            b"USER": os.fsencode(self.name),
            b"LOGNAME": os.fsencode(self.name),
            b"SHELL": os.fsencode(self.shell or "/bin/sh"),
            b"PATH": PATH,
        }
        return [k + b"=" + v for k, v in found.items() if b"\0" + k + b"=" not in there]


def account_of(uid: int) -> Account:
    """Raises GpudError with a clause: why nothing can run as this user."""
    try:
        found = pwd.getpwuid(uid)
        groups = os.getgrouplist(found.pw_name, found.pw_gid)
    except KeyError as error:
        raise GpudError(f"this machine knows no user {uid} any more") from error
    if os.path.basename(found.pw_shell) in NO_SHELLS:
        raise GpudError(f"user {found.pw_name} may not log in: their shell is {found.pw_shell}")
    return Account(
        found.pw_name, uid, found.pw_gid, tuple(sorted(groups)), found.pw_dir, found.pw_shell
    )


class Accounts:
    """`log_gid`: the group that may read all logs, beside their owners."""

    def __init__(self, log_gid: int | None = None, clock: Callable[[], float] = monotonic) -> None:
        self.log_gid = log_gid
        self._clock = clock
        self._known: dict[int, tuple[float, Account]] = {}

    def of(self, uid: int) -> Account:
        """Raises GpudError with a clause."""
        now = self._clock()
        at, account = self._known.get(uid, (0.0, None))
        if account is None or now - at > KEPT_S:
            account = account_of(uid)
            self._known[uid] = (now, account)
        return account


def gid_of(name: str) -> int | None:
    """Of a group's name or number; None: this machine knows no such group."""
    if name.isdecimal() and name.isascii():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None
