"""How gpuctl says that something did not work, even where nobody can hear it.

Used by main.py and by verbs that go on all the same. Must not raise.
"""

from __future__ import annotations

import os
import sys

from gpud.errors import GpudError


def in_words_of(verb: str, error: GpudError, asked: str) -> GpudError:
    """An error about the request `asked`, which was made for another `verb`, in that one's words.

    "cannot list job 9: no such job" becomes "cannot cancel job 9: no such job".
    """
    start = f"cannot {asked}"
    rest = error.message.removeprefix(start)
    same = rest == error.message or rest[:1] not in (" ", ":")
    message = error.message if same else f"cannot {verb}{rest}"
    return GpudError(message, kind=error.kind, hint=error.hint)


def complain(error: GpudError) -> None:
    """On stderr; where that is closed too, the exit status must do."""
    _say(error.for_people("gpuctl"))


def remark(sentence: str) -> None:
    """On stderr, beside an output that is what was asked for."""
    _say(f"gpuctl: {sentence}")


def _say(told: str) -> None:
    try:
        sys.stdout.flush()
    except OSError:
        pass
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in told)
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, AttributeError):
        pass


def abandon_stdout() -> None:
    """So that the interpreter's last flush finds somebody who reads."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
