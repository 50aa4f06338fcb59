"""`gpuctl prune`: forget old jobs and their logs now, or say what would go."""

from __future__ import annotations

import sys

from gpud.amounts import format_bytes
from gpud.client.connection import connect
from gpud.ctl import words
from gpud.ctl.agree import agreed
from gpud.ctl.args import JSON, Option, Verb, duration_s
from gpud.ctl.render import print_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpud.ctl.args import Args

YES = Option("yes", "do not ask", short="y")


def run(args: Args) -> int:
    request: dict[str, Any] = {"type": "prune"}
    if args["older"] is not None:
        request["older_s"] = args["older"]
    if args["logs-only"]:
        request["logs_only"] = True
    with connect(args["socket"]) as connection:
        if args["dry-run"] or not args["yes"]:
            would = connection.ask({**request, "dry_run": True})
            if args["dry-run"] or not _is_any(would):
                return _told(would, args, "would go" if args["dry-run"] else "gone")
            if not agreed(f"prune {_what(would)}", f"prune {_what(would)}"):
                return 1
        return _told(connection.ask(request), args, "gone")


def _told(reply: dict[str, Any], args: Args, done: str) -> int:
    if args["json"]:
        print_json(reply)
    elif _is_any(reply):
        print(f"{_what(reply)}: {done}")
    else:
        print("nothing to prune")
    sys.stdout.flush()
    return 0


def _is_any(reply: dict[str, Any]) -> bool:
    return bool(reply["jobs"] or reply["logs"] or reply["runs"])


def _what(reply: dict[str, Any]) -> str:
    parts = []
    if reply["jobs"]:
        parts.append(f"{words.plural(reply['jobs'], 'job')} with logs")
    if reply["logs"]:
        parts.append(f"the logs of {words.plural(reply['logs'], 'job')}")
    room = f" ({format_bytes(reply['log_bytes'])} of logs)" if reply["log_bytes"] else ""
    text = " and ".join(parts) + room
    runs = f"{words.plural(reply['runs'], 'old run')} of gpud run" if reply["runs"] else ""
    return ", and ".join(filter(None, (text, runs)))


VERBS = [
    Verb(
        "prune",
        "Forget old jobs that are done, and remove their logs.",
        run,
        options=(
            Option(
                "older", "than this, since their end (default: as configured)", "TIME", duration_s
            ),
            Option("logs-only", "remove logs; the jobs stay in the history"),
            Option("dry-run", "say what would go, and do nothing"),
            YES,
            JSON,
        ),
        about="""\
gpud does this by itself, as [retention] in its configuration says. Never gone
are jobs that are not done, that ended less than an hour ago, or that a job
which waits comes after. No id is ever used again, and no line of a queue file
runs twice.""",
        examples=("gpuctl prune --dry-run", "gpuctl prune --older 90d --logs-only"),
    ),
]
