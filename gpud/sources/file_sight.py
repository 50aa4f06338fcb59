"""The blocking half of reading a queue file: one open, what it shows, and reading from it.

Owns the descriptor, and every system call on the file. Called by reader.py, inline for a small
piece of a local file, else in an abandonable thread. It must not decide what a change means.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import NamedTuple

from gpud.errors import GpudError, why_os
from gpud.sources.tracker import new_digest
from gpud.sources.trusted import open_trusted

CHUNK = 1024 * 1024
WINDOW = 4096  # bytes before the next one to read that are compared at each look

# A file system that cannot, or need not, write a read-only descriptor's file out.
_NO_SYNC = (errno.EINVAL, errno.EROFS, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)


Prefix = tuple[hashlib.blake2b, bytes]  # the digest of the first bytes of a file, and their tail


class Stamp(NamedTuple):
    device: int
    inode: int
    size: int
    mtime_ns: int


class Sight:
    """An open regular file. Closed with the last reference: a thread may outlive its caller."""

    def __init__(self, fd: int, stamp: Stamp, directory: tuple[int, int]) -> None:
        self.fd = fd
        self.stamp = stamp
        self.directory = directory

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class Missing(NamedTuple):
    """The file is not in its directory, which is there."""

    directory: tuple[int, int]


def open_file(path: str, owner: int | None = None) -> Sight | Missing:
    """Raises `GpudError` for what cannot be read, for a directory that is not there, and, with an
    `owner`, for a file in which anybody beside this user and root has a say."""
    if owner is not None:
        try:
            opened = open_trusted(path, owner)
        except OSError as error:
            raise GpudError(f"cannot read {path}: {why_os(error)}") from error
        if opened.fd < 0:
            return Missing(opened.directory)
        return _sight(path, opened.fd, opened.directory)
    directory = os.path.dirname(path)
    try:
        around = os.stat(directory)
    except OSError as error:
        raise GpudError(f"cannot read {path}: {directory}: {why_os(error)}") from error
    identity = (around.st_dev, around.st_ino)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return Missing(identity)
    except OSError as error:
        raise GpudError(f"cannot read {path}: {why_os(error)}") from error
    return _sight(path, fd, identity)


def _sight(path: str, fd: int, identity: tuple[int, int]) -> Sight:
    try:
        found = os.fstat(fd)
    except OSError as error:
        os.close(fd)
        raise GpudError(f"cannot read {path}: {why_os(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise GpudError(
            f"cannot read {path}: it is {_kind(found.st_mode)}", hint="a queue file is a plain file"
        )
    stamp = Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return Sight(fd, stamp, identity)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "no regular file"


def sync(sight: Sight) -> None:
    """What was read will still be there after a power cut. `echo >>` does not see to that."""
    try:
        os.fdatasync(sight.fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def window_is(sight: Sight, window: bytes, end: int) -> bool:
    return os.pread(sight.fd, len(window), end - len(window)) == window


def read_prefix(sight: Sight, size: int) -> Prefix:
    """Of the first `size` bytes, or of fewer if there are not as many."""
    digest, tail, at = new_digest(), b"", 0
    while at < size:
        data = os.pread(sight.fd, min(CHUNK, size - at), at)
        if not data:
            break
        digest.update(data)
        tail = (tail + data)[-WINDOW:]
        at += len(data)
    return digest, tail


def read_at(sight: Sight, at: int, end: int) -> bytes:
    """The next bytes before `end`, a chunk at most."""
    return os.pread(sight.fd, min(CHUNK, end - at), at) if at < end else b""
