"""The command `gpud`: finds the verb and hands over. Everything else is imported by the verb."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

from gpud import __version__

# verb -> (module with `main(argv) -> exit status`, one line of help)
VERBS = {
    "run": ("gpud.daemon.run", "run commands from standard input on GPU slots, then end"),
    "serve": ("gpud.daemon.serve", "be the daemon: take jobs from sources and from gpuctl"),
    "check": ("gpud.tools.check", "say what is wrong with a configuration file"),
    "doctor": ("gpud.tools.doctor", "say what this machine offers gpud, and what to mend"),
    "simulate": ("gpud.tools.simulate", "say when jobs would be done, on so many GPUs"),
    "install-service": ("gpud.tools.install", "make gpud a service of systemd; --user: yours"),
    "uninstall-service": ("gpud.tools.uninstall", "take that service away; running jobs go on"),
}

HELP = f"""\
usage: gpud VERB ...

gpud runs shell jobs on the GPUs of this machine. Talk to a running one with gpuctl.

verbs:
{chr(10).join(f"  {verb:17} {line}" for verb, (_, line) in VERBS.items())}

  gpud VERB --help   the options of a verb
  gpud --version

examples:
  gpud run --gpus 0,1 < commands.txt
  gpud serve --gpus 0,1
"""


def main() -> int:
    _open_missing()
    argv = sys.argv[1:]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] in ("-V", "--version", "version"):
        print(f"gpud {__version__}")
        return 0
    if argv[0] not in VERBS:
        return _unknown(argv[0])
    try:
        verb = import_module(VERBS[argv[0]][0])
        status = int(verb.main(argv[1:]))
    except KeyboardInterrupt:
        return 130  # before the verb has its own answer to it
    return _leave(status)


def _leave(status: int) -> NoReturn:
    """Everything is closed: to take the interpreter apart as well is 20 ms that a user waits."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: it was closed at the start
            stream.flush()
    except (OSError, ValueError):
        status = status or 1  # nobody could read what was said
    os._exit(status)


def _open_missing() -> None:
    """With one of the first three descriptors closed, the next file would get its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free one


def _unknown(word: str) -> int:
    import difflib

    near = difflib.get_close_matches(word, VERBS, 1)
    hint = f"did you mean gpud {near[0]}?" if near else "verbs: " + ", ".join(VERBS)
    print(f'gpud: cannot do "{word}": no such verb\n  {hint}', file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
