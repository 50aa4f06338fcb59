"""Where the benchmarks work: a new directory whose subdirectories lie far apart on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

# From linux/fs.h, as _IOR('f', 1, long) and _IOW('f', 2, long) are on all but a few processors.
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_TOPDIR_FL = 0x00020000


@contextlib.contextmanager
def workplace(parent: str | None) -> Iterator[Path]:
    """A directory in `parent` (default: that for temporary files), which is gone afterwards."""
    place = Path(tempfile.mkdtemp(prefix="gpud-benchmark-", dir=parent))
    try:
        spread_subdirectories(place)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def spread_subdirectories(path: Path) -> None:
    """As `chattr +T`: ext4 then puts each new subdirectory into a block group of its own, away from
    where others have just deleted files. File systems that cannot do so need not."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, struct.pack("l", 0)))
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags | FS_TOPDIR_FL))
    except OSError:
        pass
    finally:
        os.close(fd)
