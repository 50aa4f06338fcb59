"""`cancel`, `retry`, `hold`, `release`: the verbs that change jobs."""

from __future__ import annotations

import os

from gpud.client import wire
from gpud.client.connection import connect
from gpud.ctl.agree import YES, chosen, report
from gpud.ctl.args import JSON, Option, Verb, duration_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpud.ctl.args import Args

STATES_OF = {
    "cancel": ("queued", "held", "active"),
    "retry": ("done",),
    "hold": ("queued",),
    "release": ("held",),
}
DONE = {"cancel": "cancelling", "retry": "queued again", "hold": "held", "release": "released"}


def changing(verb: str) -> Callable[[Args], int]:
    def run(args: Args) -> int:
        reply: dict[str, Any] = {"jobs": [], "refused": []}
        with connect(args["socket"]) as connection:
            jobs = chosen(connection, verb, args, STATES_OF[verb])
            if jobs is None:
                return 1
            if jobs:
                request: dict[str, Any] = {"type": verb, "jobs": jobs}
                if verb == "cancel" and args["grace"] is not None:
                    request["grace_s"] = args["grace"]
                if verb == "retry" and args["args"] is not None:
                    request["args"] = wire.to_text(os.fsencode(args["args"]))
                reply = connection.ask(request)
        return report(verb, reply, args, DONE[verb])

    return run


VERBS = [
    Verb(
        "cancel",
        "End jobs that wait or run: TERM, then KILL after a grace.",
        changing("cancel"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(
            Option("grace", "between TERM and KILL (default: the job's)", "TIME", duration_s),
            YES,
            JSON,
        ),
        examples=("gpuctl cancel 42", "gpuctl cancel name:sweep --yes", "gpuctl cancel all"),
    ),
    Verb(
        "retry",
        "Queue jobs again that are done, under their ids.",
        changing("retry"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(
            Option("args", "at the end of the command from now on", "TEXT"),
            YES,
            JSON,
        ),
        about="""\
--args takes the place of the job's retry-args and is split as a shell does.
state:bad is all that ended as failed, killed, timed-out, not-started or lost:
what a person looks at in the morning.""",
        examples=(
            "gpuctl retry 42",
            'gpuctl retry 42 --args "--resume last.ckpt"',
            "gpuctl retry state:failed",
            "gpuctl retry state:bad",
        ),
    ),
    Verb(
        "hold",
        "Keep queued jobs from starting.",
        changing("hold"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(YES, JSON),
        examples=("gpuctl hold 42", "gpuctl hold state:queued"),
    ),
    Verb(
        "release",
        "Let held jobs start.",
        changing("release"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(YES, JSON),
        examples=("gpuctl release 42", "gpuctl release state:held"),
    ),
]
