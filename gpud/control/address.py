"""The address on which the control server listens: making it and taking it away again.

Called by control/server.py. A socket file that nobody listens on is left over from a crash and is
replaced; one that somebody listens on, or a file that is no socket, is never touched. Must not
speak the protocol.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from gpud.control.access import Policy
from gpud.errors import GpudError, why_os
from gpud.paths import short_address

PRIVATE = Policy()
BACKLOG = 1024  # connections that wait for accept(2); the kernel's net.core.somaxconn caps it


class Listener:
    """A listening socket and the file it stands for."""

    def __init__(self, path: Path, policy: Policy = PRIVATE) -> None:
        """Bind and listen at `path`, for its owner only, or who `policy` lets in. Raises
        GpudError."""
        self._path = path
        try:
            mode = 0o755 if policy.system else 0o700
            path.parent.mkdir(mode=mode, parents=True, exist_ok=True)
            if policy.system:
                check_directory(path.parent)
            _clear_the_way(path)
            self.socket = _listen(path, policy)
            found = os.lstat(path)
        except OSError as error:
            raise GpudError(f"cannot listen on {path}: {_why(path, error)}") from error
        self._identity = (found.st_dev, found.st_ino)

    def remove(self) -> None:
        """Take the file away, unless it is another one by now."""
        try:
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)
        except OSError:
            pass  # gone already, with its directory perhaps


def check_directory(directory: Path) -> None:
    """Nobody but root may put another socket in the place of ours, there or above. Raises
    GpudError."""
    at = Path(os.path.realpath(directory))
    for place in (at, *at.parents):
        found = os.stat(place)
        shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if (
            found.st_uid not in (0, os.geteuid())
            or shared
            or (place == at and found.st_mode & 0o022)
        ):
            raise GpudError(
                f"cannot listen in {directory}: others than root may write in {place}",
                kind="config",
                hint="set `socket` to a path like /run/gpud/gpud.sock",
            )


def _listen(path: Path, policy: Policy) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_address(path) as address:
            server.bind(address)
        # Before listen(2): until then nobody can connect.
        if policy.system:
            os.chown(path, -1, -1 if policy.group is None else policy.group)
        os.chmod(path, mode_of(policy))
        server.listen(BACKLOG)
    except OSError:
        server.close()
        raise
    return server


def mode_of(policy: Policy) -> int:
    if not policy.system:
        return 0o600
    return 0o666 if policy.group is None else 0o660


def _clear_the_way(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise GpudError(
            f"cannot listen on {path}: something that is not a socket is there",
            kind="config",
            hint="remove it, or choose another path with `socket` in the configuration",
        )
    if _somebody_listens(path):
        raise GpudError(
            f"cannot listen on {path}: another gpud listens there",
            hint=f"gpuctl --socket {path} status",
        )
    os.unlink(path)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)  # a full backlog is an answer too: EAGAIN
        try:
            with short_address(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        return True


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{path.parent} is not a directory"
    # The socket module itself refuses a long address, without an errno.
    if error.errno == errno.ENAMETOOLONG or "too long" in str(error):
        return "the path is too long"
    return why_os(error)
