"""The oldest SQLite and kernel that gpud works with, tested at start with one sentence each."""

from __future__ import annotations

import os
import re
import sqlite3

from gpud.errors import GpudError

SQLITE = (3, 34)
KERNEL = (5, 4)  # pidfd_open came with 5.3, waitid(P_PIDFD) with 5.4


def check_minimums(sqlite: tuple[int, ...] = sqlite3.sqlite_version_info, kernel: str = "") -> None:
    """Raises GpudError (storage). `kernel` is a release as uname(2) gives it."""
    if sqlite < SQLITE:
        raise _too_old("SQLite", SQLITE, ".".join(map(str, sqlite)), "of Python's sqlite3 module")
    release = kernel or os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) < KERNEL:
        raise _too_old("Linux", KERNEL, release, "running")


def _too_old(what: str, minimum: tuple[int, int], found: str, where: str) -> GpudError:
    wanted = f"{what} {minimum[0]}.{minimum[1]}"
    return GpudError(
        f"cannot start: gpud needs {wanted} or newer, the one {where} is {found}", kind="storage"
    )
