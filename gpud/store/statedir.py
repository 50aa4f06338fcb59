"""The state directory: chosen, made, checked, and locked by one daemon.

Owns the file `lock`. Called by daemon/app.py and by the tools before anything else touches the
directory. The content of `lock` is this daemon's token, a random line that a runner compares with
what the daemon says to it (docs/runner-protocol.md); its digits up to the hyphen are the pid, for
people. The lock ends with the process; the token stays, since only a held lock makes it count.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

from gpud import paths
from gpud.errors import GpudError, why_os
from gpud.filesystem import is_network, type_of

LOCK = "lock"
# A runner that checks a token tries the lock for a moment: one refusal is not yet another daemon.
TRIES = 5
PAUSE_S = 0.02


class StateDir:
    """A locked state directory. `note` is a sentence for the log, or ""."""

    def __init__(self, path: Path, lock: int, token: str, note: str) -> None:
        self.path = path
        self.token = token
        self.note = note
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, configured: bool) -> StateDir:
        """The directory at `path`, made if need be; `configured` when a person named it.

        Raises GpudError (storage) with one sentence.
        """
        path = Path(os.path.abspath(path))
        note = ""
        try:
            type_ = type_of(path)
            if is_network(type_):
                path, note = _elsewhere(path, type_, configured=configured)
            _make(path)
            _check(path)
            lock, token = _lock(path)
        except OSError as error:
            raise _cannot(path, why_os(error)) from error
        return cls(path, lock, token, note)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _cannot(path: Path, why: str, hint: str = "") -> GpudError:
    return GpudError(f"cannot use {path}: {why}", kind="storage", hint=hint)


def _elsewhere(path: Path, type_: str, *, configured: bool) -> tuple[Path, str]:
    """The place on a local disk that stands for a default directory, and the note about it."""
    if configured:
        raise _cannot(
            path,
            f"it is on a network file system ({type_})",
            "set state_dir to a directory on a local disk",
        )
    fallback = paths.fallback_state_dir()
    _make(fallback)
    _check(fallback, private=True)
    default = paths.state_dir()
    inside = path.relative_to(default) if path.is_relative_to(default) else Path()
    note = f"{path} is on a network file system ({type_}): state is kept in {fallback / inside}"
    return fallback / inside, note


def _make(path: Path) -> None:
    """What is missing of it, for its owner alone."""
    try:
        path.mkdir(0o700)
    except FileNotFoundError:
        _make(path.parent)
        path.mkdir(0o700, exist_ok=True)
    except FileExistsError:
        pass


def _check(path: Path, *, private: bool = False) -> None:
    """It is a directory, ours, and nobody else may write in it (`private`: or enter it).

    The fallback has a name that anybody could have taken before: no link is followed there.
    """
    found = os.lstat(path) if private else os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise _cannot(path, "it is not a directory")
    if found.st_uid != os.geteuid():
        raise _cannot(path, f"it belongs to another user (uid {found.st_uid})")
    if private and found.st_mode & 0o077:
        raise _cannot(path, "other users may enter it", f"chmod 700 {path}")
    if found.st_mode & 0o022:
        raise _cannot(path, "other users may write in it", f"chmod go-w {path}")


def _lock(path: Path) -> tuple[int, str]:
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _flock(fd, path)
        token = f"{os.getpid():010}-{os.urandom(16).hex()}"
        # Written over the last one, which is as long: this works on a full disk too.
        os.pwrite(fd, f"{token}\n".encode(), 0)
        os.ftruncate(fd, len(token) + 1)
    except BaseException:
        os.close(fd)
        raise
    return fd, token


def _flock(fd: int, path: Path) -> None:
    for again in range(TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if again < TRIES - 1:
                time.sleep(PAUSE_S)
    pid = os.pread(fd, 64, 0).decode(errors="replace").partition("-")[0].lstrip("0")
    who = f"another gpud (pid {pid})" if pid.isdecimal() else "another gpud"
    raise _cannot(path, f"{who} has it")
