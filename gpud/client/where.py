"""Where a client looks for the daemon's socket, and why it cannot be reached there.

The order is that of `gpud.paths.socket_candidates`, in strings: importing pathlib costs gpuctl
as much as the interpreter's own start. A test holds the two together.
"""

from __future__ import annotations

import errno
import os
import stat

from gpud.errors import GpudError, why_os

START_HINT = "start it: gpud serve --gpus 0,1"
SYSTEM_SOCKET = "/run/gpud/gpud.sock"


def candidates() -> list[str]:
    """In order; `$GPUD_SOCKET` alone when it is set."""
    environ = os.environ
    if given := environ.get("GPUD_SOCKET"):
        return [given]
    if given := environ.get("STATE_DIRECTORY"):
        state = given.split(":")[0]
    else:
        base = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        state = os.path.join(base, "gpud")
    found = []
    if given := environ.get("RUNTIME_DIRECTORY"):
        found.append(os.path.join(given.split(":")[0], "gpud.sock"))
    elif (base := environ.get("XDG_RUNTIME_DIR", "")) and os.path.isdir(base):
        found.append(os.path.join(base, "gpud", "gpud.sock"))
    fallback = f"/var/tmp/gpud-{os.getuid()}"  # state moves there when home is on a network
    found.append(os.path.join(state, "gpud.sock"))
    if _is_own_directory(fallback):  # anybody can take that name
        found.append(os.path.join(fallback, "gpud.sock"))
    found.append(SYSTEM_SOCKET)
    return list(dict.fromkeys(found))


def _is_own_directory(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def unreachable(path: str, error: OSError, others: list[str]) -> GpudError:
    """The sentence about `path`, whose connect failed with `error`; `others` were tried too."""
    try:
        status = os.stat(path)
    except OSError:
        status = None
    hint = START_HINT
    if status is not None and not stat.S_ISSOCK(status.st_mode):
        why, hint = "that is not a socket", ""
    elif isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        why = "nobody listens there"
    elif isinstance(error, PermissionError):
        owner = _name_of(status.st_uid) if status is not None else "another user"
        why, hint = f"permission denied (the socket belongs to {owner})", ""
    elif isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:
        why, hint = "it does not answer", "is it stopped or overloaded? gpuctl ping tries again"
    else:
        why = why_os(error)
    if others and isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        hint = "\n  ".join(filter(None, [f"also tried: {', '.join(others)}", hint]))
    return GpudError(f"cannot reach gpud at {path}: {why}", kind="unreachable", hint=hint)


def _name_of(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
