"""The journal's file: append-only, and a reserve given up on a full disk to record ends.

Owned by the ledger. Must not know what a line says.
"""

import errno
import os
from collections.abc import Iterable

from gpud.runner.machine import log

RESERVE_BYTES = 256 << 10


class Journal:
    def __init__(self, path: str) -> None:
        self.path, self.reserve = path, path.replace(".journal", ".reserve")
        self.fd = -1
        self.size = 0
        self.torn = False  # the last write may have left half a line

    def write(self, data: bytes, *, spend_reserve: bool = True) -> None:
        if self.torn:
            data = b"\n" + data
        while data:
            try:
                written = os.write(self.fd, data)
            except OSError as e:
                full = e.errno in (errno.ENOSPC, errno.EDQUOT)
                if full and spend_reserve and os.path.exists(self.reserve):
                    os.unlink(self.reserve)
                    continue
                self.torn = True
                raise
            self.size += written
            data = data[written:]
        self.torn = False

    def replace(self, lines: Iterable[bytes]) -> None:
        """Compact: only `lines`, on the disk before the old file goes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path + ".new", flags, 0o600)
        before, self.fd, self.size, self.torn = self.fd, fd, 0, False
        try:
            self.write(b"".join(lines))
            os.fsync(fd)
            os.rename(self.path + ".new", self.path)
        except OSError:
            os.close(fd)
            self.fd = before
            raise
        if before >= 0:
            os.close(before)
        self.fill_reserve()

    def fill_reserve(self) -> None:
        fd = os.open(self.reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE_BYTES)
        except OSError as e:
            log(f"cannot keep a reserve for a full disk: {e.strerror}")
        finally:
            os.close(fd)
