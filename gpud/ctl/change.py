"""`cancel`, `retry`, `hold`, `pause` and others: the verbs that change jobs."""

from __future__ import annotations

import os

from gpud.client import wire
from gpud.client.connection import connect
from gpud.ctl.agree import ALL_USERS, YES, all_users, chosen, report
from gpud.ctl.args import JSON, Option, Verb, duration_s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpud.ctl.args import Args

# Which states and phases a verb can do anything about; what else falls under a selector is left
# alone.
STATES_OF = {
    "cancel": ("queued", "held", "active"),
    "retry": ("done",),
    "hold": ("queued",),
    "release": ("held",),
    "pause": ("running",),
    "continue": ("paused",),
    "checkpoint": ("running", "paused"),
}
DONE = {
    "cancel": "cancelling",
    "retry": "queued again",
    "hold": "held",
    "release": "released",
    "pause": "paused; GPU memory stays held",
    "continue": "continued",
    "checkpoint": "asked to save and leave",
}


def changing(verb: str) -> Callable[[Args], int]:
    def run(args: Args) -> int:
        reply: dict[str, Any] = {"jobs": [], "refused": []}
        with connect(args["socket"]) as connection:
            jobs = chosen(connection, verb, args, STATES_OF[verb])
            if jobs is None:
                return 1
            if jobs:
                request: dict[str, Any] = {"type": verb, "jobs": jobs} | all_users(args)
                if verb in ("cancel", "checkpoint") and args["grace"] is not None:
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
            ALL_USERS,
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
            ALL_USERS,
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
        options=(ALL_USERS, YES, JSON),
        examples=("gpuctl hold 42", "gpuctl hold state:queued"),
    ),
    Verb(
        "release",
        "Let held jobs start.",
        changing("release"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(ALL_USERS, YES, JSON),
        examples=("gpuctl release 42", "gpuctl release state:held"),
    ),
    Verb(
        "pause",
        "Stop running jobs for a while: they keep their GPUs and the memory there.",
        changing("pause"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(ALL_USERS, YES, JSON),
        about="""\
All processes of the job stand still, and its time limit with them, until
gpuctl continue. That outlives a restart of gpud. Nobody else gets what the
job holds: to give it up, gpuctl checkpoint or cancel.""",
        examples=("gpuctl pause 42", "gpuctl pause state:running"),
    ),
    Verb(
        "continue",
        "Let paused jobs go on.",
        changing("continue"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(ALL_USERS, YES, JSON),
        examples=("gpuctl continue 42", "gpuctl continue state:paused"),
    ),
    Verb(
        "checkpoint",
        "Let jobs save their state and leave; they are queued again.",
        changing("checkpoint"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(
            Option("grace", "for saving, then TERM (default: the job's)", "TIME", duration_s),
            ALL_USERS,
            YES,
            JSON,
        ),
        about="""\
For jobs that were submitted with --checkpoint SIGNAL: they get that signal,
after the grace TERM, after the grace once more KILL. However they end then,
they are queued again and keep their retries; the next attempt finds
GPUD_RESUME=1 in its environment, and the retry-args in its command.""",
        examples=("gpuctl checkpoint 42", "gpuctl checkpoint name:sweep --grace 5m"),
    ),
]
