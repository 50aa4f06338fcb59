"""Where gpud keeps things when nobody says otherwise (XDG base directories).

Called by the daemon, gpuctl and the tools; touches no file. Standard library only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_NAME = "gpud.sock"
SYSTEM_SOCKET = Path("/run/gpud") / SOCKET_NAME


def state_dir() -> Path:
    """`$STATE_DIRECTORY` (of systemd), `$XDG_STATE_HOME/gpud` or `~/.local/state/gpud`."""
    given = os.environ.get("STATE_DIRECTORY")
    if given:
        return Path(given.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "gpud"


def socket_path(state: Path) -> Path:
    """Where the daemon listens: `$GPUD_SOCKET`, a runtime directory (systemd, XDG), or `state`."""
    given = os.environ.get("GPUD_SOCKET")
    if given:
        return Path(given)
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime:
        return Path(runtime.split(":")[0]) / SOCKET_NAME
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isdir(base):
        return Path(base) / "gpud" / SOCKET_NAME
    return state / SOCKET_NAME


def listening_at(state: Path, given: Path | None) -> tuple[Path, ...]:
    """Where the daemon listens: at the one place that somebody named, else also in the state
    directory, since a runtime directory vanishes when its user logs out."""
    if given is not None or os.environ.get("GPUD_SOCKET"):
        return (given or socket_path(state),)
    return tuple(dict.fromkeys((socket_path(state), state / SOCKET_NAME)))


def socket_candidates() -> list[Path]:
    """Where a client looks for the daemon, in order; `$GPUD_SOCKET` alone when it is set."""
    given = os.environ.get("GPUD_SOCKET")
    if given:
        return [Path(given)]
    state = state_dir()
    found = [socket_path(state), state / SOCKET_NAME]
    fallback = fallback_state_dir()
    if is_own_directory(str(fallback)):  # anybody can take that name
        found.append(fallback / SOCKET_NAME)
    found.append(SYSTEM_SOCKET)
    return list(dict.fromkeys(found))


def fallback_state_dir() -> Path:
    """Where state goes when the default directory is on a network file system."""
    return Path(f"/var/tmp/gpud-{os.getuid()}")


def is_own_directory(path: str) -> bool:
    """A directory of this user, and no link to one."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def log_path(state: Path | str, job: int, attempt: int) -> str:
    """The file that holds an attempt's output; at most 1,000 jobs share a directory."""
    return f"{state}/logs/{job // 1000}/{job}.{attempt}.log"


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for a Unix socket at `path`, however long: past the 107 bytes that the kernel
    takes, through a descriptor of its directory, which is open only inside the `with`."""
    text = str(path)
    if len(os.fsencode(text)) <= 107:
        yield text
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
