"""A hole in the middle of a file: what was there gives its room back, what is around it stays.

Called by store/files.py. fallocate(2) by ctypes, which is loaded when the first log is cut.
"""

from __future__ import annotations

import os
import stat

from gpud.core.log_caps import Room
from gpud.errors import GpudError, why_os

KEEP_SIZE, PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h
SMALLEST_BLOCK = 4096
BLOCK = 512  # the unit of st_blocks, whatever the file system's
FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def room_of(path: str) -> Room | None:
    """None: there is no such file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Room(found.st_size, found.st_blocks * BLOCK, max(found.st_blksize, SMALLEST_BLOCK))


def punch(path: str, first: int, end: int) -> None:
    """Raises GpudError (storage) with a clause: why it cannot be done."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    try:
        fd = os.open(path, FLAGS)
    except OSError as error:
        raise GpudError(why_os(error), kind="storage") from error
    try:
        if fallocate(fd, PUNCH_HOLE | KEEP_SIZE, first, end - first):
            number = ctypes.get_errno()
            raise GpudError(f"this file system cannot: {os.strerror(number)}", kind="storage")
    finally:
        os.close(fd)
