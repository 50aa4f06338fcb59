"""A text in a person's editor: $VISUAL, else $EDITOR, else vi.

Used by edit.py. Rule 1: what somebody has typed is never lost: unless it was all of use, its file
stays, and whatever then goes wrong says where it is. Rule 2: as with git and crontab the editor is
a line for the shell, and it runs wherever it is told to; only vi needs a terminal.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile

from gpud.errors import GpudError, why_os
from gpud.signals import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LAST_RESORT = "vi"
NOT_FOUND, SIGNALLED = 127, 128  # exit statuses of a shell
HINT = "set EDITOR, or say what to change: gpuctl edit 42 --priority 9"


class Editing:
    """A file for one text, while it is in use. `what` begins the sentences: "edit job 42"."""

    def __init__(self, what: str, name: str) -> None:
        self._what = what
        self._typed = False  # something that is not there otherwise
        self._editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
        if not self._editor and not is_terminal():
            raise self._cannot("without an editor: this is not a terminal", kind="usage", hint=HINT)
        try:
            self._directory = tempfile.mkdtemp(prefix="gpuctl-")
        except OSError as error:
            raise self._cannot(f": no temporary file can be made: {why_os(error)}") from error
        self.path = os.path.join(self._directory, name)

    def __enter__(self) -> Editing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or not self._typed:
            shutil.rmtree(self._directory, ignore_errors=True)
        elif isinstance(error, GpudError):
            error.hint = "; ".join(filter(None, [error.hint, self._where()]))
        else:
            print(f"gpuctl: {self._where()}", file=sys.stderr)

    def _where(self) -> str:
        return f"what you typed is in {self.path}"

    def ask(self, text: str) -> str:
        """What a person makes of `text`. Raises GpudError when the editor did not end well."""
        try:
            with open(self.path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
            status = self._run()
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                typed = file.read()
        except OSError as error:
            raise self._cannot(f": {self.path}: {why_os(error)}") from error
        self._typed |= typed.strip() not in ("", text.strip())
        if status == NOT_FOUND:
            raise self._cannot(f": there is no editor {self._editor or LAST_RESORT}", hint=HINT)
        if status:
            killed = status > SIGNALLED
            how = signal_name(status - SIGNALLED) if killed else f"status {status}"
            raise self._cannot(f": the editor ended with {how}; nothing was changed")
        return typed

    def _run(self) -> int:
        """A Ctrl-C on the terminal is the editor's alone. Here and in the shell a handler takes it,
        since what they ignored would be ignored by the editor, too."""
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            line = f'trap : INT; {self._editor or LAST_RESORT} "$@"'
            status = subprocess.call(["/bin/sh", "-c", line, "editor", self.path])
        finally:
            signal.signal(signal.SIGINT, before)
        return SIGNALLED - status if status < 0 else status

    def _cannot(self, why: str, *, kind: str = "refused", hint: str = "") -> GpudError:
        space = "" if why.startswith(":") else " "
        return GpudError(f"cannot {self._what}{space}{why}", kind=kind, hint=hint)


def is_terminal() -> bool:
    return bool(sys.stdin and sys.stdin.isatty() and sys.stdout.isatty())
