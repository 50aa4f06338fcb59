"""The entry of `gpuctl`: finds the verb, runs it, turns every trouble into a line and a status.

Called by the console script. Imports a file of verbs only when one of its verbs was asked for,
and nothing else that costs time: a submit has 20 ms from its start to its exit. Knows no verb
but by name.
"""

from __future__ import annotations

import os
import sys

from gpud.ctl.args import EXITS, Verb, help_of, nearest, parse
from gpud.ctl.trouble import abandon_stdout, complain
from gpud.errors import GpudError, why_os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MODULE_OF = {
    "submit": "submit",
    "status": "status",
    "ls": "ls",
    "show": "show",
    "why": "why",
    "logs": "logs",
    "wait": "wait",
    "events": "events",
    "cancel": "change",
    "retry": "change",
    "hold": "change",
    "release": "change",
    "edit": "edit",
    "move": "move",
    "swap": "move",
    "pause": "change",
    "continue": "change",
    "checkpoint": "change",
    "prune": "prune",
    "drain": "daemon",
    "undrain": "daemon",
    "reload": "daemon",
    "shutdown": "shutdown",
    "ping": "daemon",
    "metrics": "daemon",
    "gpus": "gpus",
    "groups": "groups",
    "group": "groups",
    "users": "groups",
    "sources": "sources",
    "source": "sources",
}
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def find(name: str) -> Verb:
    """Raises GpudError (usage) for a verb that does not exist."""
    module = MODULE_OF.get(name)
    if module is None:
        raise GpudError(
            f'cannot do "{name}": no such verb{nearest(name, list(MODULE_OF))}',
            kind="usage",
            hint="see: gpuctl --help",
        )
    verbs: list[Verb] = __import__(f"gpud.ctl.{module}", fromlist=["VERBS"]).VERBS
    return next(verb for verb in verbs if verb.name == name)


def split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """(verb, its arguments): `--socket` may stand before the verb; no verb means `status`."""
    before: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        if rest[0] in ("--help", "-h"):
            return "help", []
        if rest[0] == "--version":
            return "version", []
        before.append(rest.pop(0))
        if before[-1] == "--socket" and rest:
            before.append(rest.pop(0))
    verb = rest.pop(0) if rest else "status"
    return verb, before + rest


def run(argv: Sequence[str]) -> int:
    name, rest = split(argv)
    if name == "version":
        from gpud import __version__

        print(f"gpuctl {__version__}")
        return 0
    if name == "help" and not rest:
        from gpud.ctl.overview import TEXT

        sys.stdout.write(TEXT)
        return 0
    if name == "help":
        name, rest = rest[0], ["--help"]
    verb = find(name)
    try:
        args = parse(verb, rest)
        if args["help"]:
            sys.stdout.write(help_of(verb))
            return 0
        return verb.run(args)
    except GpudError as error:
        complain(error)
        return verb.exit_status(error)


def main(argv: Sequence[str] | None = None) -> int:
    if sys.stdout is None:  # closed by the shell: `gpuctl … >&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    status = 0
    try:
        status = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except GpudError as error:
        complain(error)
        status = EXITS.get(error.kind, 1)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough: `gpuctl ls | head -1`
        abandon_stdout()
    except OSError as error:
        complain(GpudError(f"cannot write the output: {why_os(error)}"))
        abandon_stdout()
        status = 1
    except Exception as error:
        if os.environ.get("GPUCTL_TRACEBACK"):
            raise
        complain(
            GpudError(
                f"cannot go on: {type(error).__name__}: {error}",
                hint="this is a bug in gpuctl; GPUCTL_TRACEBACK=1 shows where",
            )
        )
        status = 1
    return status
