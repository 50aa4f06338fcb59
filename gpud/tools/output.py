"""What a verb of `gpud` says on standard output, whatever that is.

Used by tools/check.py, tools/doctor.py and tools/simulate.py.
"""

from __future__ import annotations

import io
import os
import sys

from gpud.errors import EXIT_OK, EXIT_REFUSED, GpudError, why_os


def say(text: str, verb: str) -> int:
    """The exit status. Where it could not be written a sentence on standard error says so, unless
    the reader has seen enough (`| head`)."""
    if sys.stdout is None:  # closed by the shell: nobody wants to hear it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may have any character
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return EXIT_REFUSED
    except OSError as error:
        why = GpudError(f"cannot write the output: {why_os(error)}")
        print(why.for_people(verb), file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_OK
