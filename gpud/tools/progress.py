"""How far a calculation is: one line on the terminal that is rewritten, and gone at the end.

Used by tools/simulate.py. There is none where standard error is no terminal, and none before
PATIENCE_S have passed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType

PATIENCE_S = 2.0
EVERY_S = 0.2
ERASE_LINE = "\r\x1b[K"


class Progress:
    """A context; when it is left the line is removed."""

    def __init__(self) -> None:
        self._is_wanted = sys.stderr is not None and sys.stderr.isatty()
        self._due_s = time.monotonic() + PATIENCE_S
        self._is_shown = False

    def show(self, line: Callable[[], str]) -> None:
        """If it is time; costs next to nothing when it is not."""
        if not self._is_wanted:
            return
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + EVERY_S
            self._is_shown = True
            self._write(ERASE_LINE + line()[: _columns() - 1])

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._is_wanted = False  # nobody looks

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_shown:
            self._write(ERASE_LINE)


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80
