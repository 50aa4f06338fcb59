"""A log that lost its middle, as a person reads it: what is there, and how much is not.

Used by logs.py. gpud says where the hole begins (it stays there and only grows at its end); the
file itself says how far it goes now, so that reading on while it grows is right, too. A hole that
gpud did not make is shown as the zero bytes that it is.
"""

from __future__ import annotations

import os

from gpud.amounts import format_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def end_of_hole(fd: int, at: int) -> int:
    """Where there is data again, from `at` on; `at` itself where there is some."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError:  # nothing but a hole up to the end, or the file system knows of none
        return at


def pieces(fd: int, at: int, first: int | None, chunk: int) -> Iterator[tuple[int, bytes]]:
    """From `at` to the end: how far each goes in the file, and what to show of it. `first`: where
    what was cut out begins; None: nothing was."""
    while True:
        if first is not None and at >= first and (end := end_of_hole(fd, at)) > at:
            yield end - at, f"[… {format_bytes(end - at)} cut …]\n".encode()
            at = end
        length = min(chunk, first - at) if first is not None and at < first else chunk
        data = os.pread(fd, length, at)
        if first is not None and at >= first and data:
            data = data[: _hole(fd, at) - at]  # it was cut while it was read
            if not data:
                continue
        if not data:
            return
        at += len(data)
        yield len(data), data


def _hole(fd: int, at: int) -> int:
    """Where the next hole begins; at the end of the file at the latest."""
    try:
        return os.lseek(fd, at, os.SEEK_HOLE)
    except OSError:
        return 1 << 62
