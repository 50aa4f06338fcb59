"""A megabyte of disk kept back, so that ends can still be recorded when the disk is full.

Owns the file `reserve` of the state directory. Called by SqliteStore: released when a commit finds
the disk full, made again once a commit succeeds and there is room.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SIZE = 1 << 20
ROOM = 8 * SIZE  # free beside it before it is made again: it must not fill the disk itself
PAUSE_S = 60.0  # between two tries: a quota may say no where the file system has room


class Reserve:
    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._next_try_s = clock()
        self.held = False
        try:
            self.held = path.stat().st_size == SIZE
        except OSError:
            pass

    def release(self) -> bool:
        """Give the room back to the disk; False when there was none."""
        self.held = False
        self._next_try_s = self._clock() + PAUSE_S
        try:
            had = self._path.stat().st_size > 0
            self._path.unlink()
        except OSError:
            return False
        return had

    def needed(self) -> bool:
        """Whether there is no more room on the disk than this would give back."""
        try:
            return self._room() < SIZE
        except OSError:
            return False

    def restore(self) -> None:
        """Keep room back again, if there is enough of it and the last try is a while ago."""
        now_s = self._clock()
        if self.held or now_s < self._next_try_s:
            return
        self._next_try_s = now_s + PAUSE_S
        try:
            if self._room() >= SIZE + ROOM:
                self._write()
                self.held = True
        except OSError:
            try:
                self._path.unlink(missing_ok=True)
            except OSError:
                pass  # the next commit says what is wrong with this disk

    def _room(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _write(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            block = os.urandom(SIZE)  # neither holes nor compression make this smaller
            while block:
                block = block[os.write(fd, block) :]
        finally:
            os.close(fd)
