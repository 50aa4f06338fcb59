"""What a `start` asks to be run, decoded: bytes, as the kernel takes them.

Made by orders.py, used by start.py. Must not touch the disk.
"""

import os

from gpud.runner.wire import Message, raw, raws, shown, whole

Environ = dict[bytes, bytes]


class CannotStart(Exception):
    """`kind` and `why` of a `not-started`."""

    def __init__(self, kind: str, why: str) -> None:
        self.kind, self.why = kind, why


class User:
    """Another user than the runner's."""

    def __init__(self, m: Message) -> None:
        self.uid, self.gid = whole(m["uid"]), whole(m["gid"])
        self.groups = [whole(x) for x in m["groups"]]

    def is_our_own(self) -> bool:
        return (self.uid, self.gid) == (os.geteuid(), os.getegid())


def environ_of(entries: list[bytes]) -> Environ | None:
    """None when one of them is no NAME=VALUE."""
    try:
        return dict([entry.split(b"=", 1) for entry in entries])
    except ValueError:
        return None


class Command:
    def __init__(self, m: Message, base: Environ | None) -> None:
        """`base` is the environment that its own is added to."""
        self.argv = raws(m["argv"])
        self.base, self.added = base, environ_of(raws(m["env"]))
        self.cwd = raw(m["cwd"])
        self.log = raw(m["log"])
        self.umask: int | None = None if m.get("umask") is None else whole(m["umask"])
        user = User(m["user"]) if m.get("user") is not None else None
        self.log_gid: int | None = None if m.get("log_gid") is None else whole(m["log_gid"])
        self.user = None if user is None or user.is_our_own() else user

    def environ(self, nonce: str) -> Environ:
        """All of it. Raises CannotStart for what nothing could be started with."""
        if not self.argv:
            raise CannotStart("command", "it is empty")
        if not self.cwd.startswith(b"/"):
            raise CannotStart("cwd", f"the directory {shown(self.cwd)} is not absolute")
        if self.base is None or self.added is None:
            raise CannotStart("command", "an entry of its environment is no NAME=VALUE")
        return {**self.base, **self.added, b"GPUD_NONCE": nonce.encode()}
