"""`cancel`, `retry`, `hold`, `pause` and others that change jobs, and asking before many do.

Jobs named by themselves (42, @, @~2) are simply sent. What a range, a name, a state, a source or
`all` covers is looked up first; when that is more than one job, a person is asked, and then
exactly the jobs that were asked about are sent: one that came meanwhile is not touched.
"""

from __future__ import annotations

import os
import sys

from gpud.client import wire
from gpud.client.connection import Connection, connect
from gpud.ctl import words
from gpud.ctl.args import JSON, Option, Verb, duration_s
from gpud.ctl.ls import list_all
from gpud.ctl.render import print_json, screen
from gpud.ctl.trouble import complain, in_words_of
from gpud.errors import GpudError

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
            jobs = _chosen(connection, verb, args)
            if jobs is None:
                return 1
            if jobs:
                request: dict[str, Any] = {"type": verb, "jobs": jobs}
                if verb in ("cancel", "checkpoint") and args["grace"] is not None:
                    request["grace_s"] = args["grace"]
                if verb == "retry" and args["args"] is not None:
                    request["args"] = wire.to_text(os.fsencode(args["args"]))
                reply = connection.ask(request)
        return _report(verb, reply, args)

    return run


def by_itself(selector: str) -> bool:
    return selector.isdecimal() or selector.startswith("@")


def _chosen(connection: Connection, verb: str, args: Args) -> list[str] | None:
    """The selectors to send; None when the person said no."""
    single = [word for word in args.words if by_itself(word)]
    broad = [word for word in args.words if not by_itself(word)]
    if not broad:
        return single
    found = _look_up(connection, verb, broad)
    if len(found) > 1 and not args["yes"] and not _agreed(verb, found):
        return None
    return single + words.spans(found)


def _look_up(connection: Connection, verb: str, selectors: list[str]) -> list[int]:
    if "all" in selectors:  # not the whole history, where there is nothing to do about it
        rest = [selector for selector in selectors if selector != "all"]
        selectors = [f"state:{state}" for state in STATES_OF[verb]] + rest
    try:
        jobs = list_all(connection, selectors)
    except GpudError as error:
        raise in_words_of(verb, error, "list") from error
    return [job["id"] for job in jobs if _applies(verb, job)]


def _applies(verb: str, job: dict[str, Any]) -> bool:
    where = job["state"], job["phase"]
    able = verb != "checkpoint" or bool(job.get("checkpoint"))
    return able and any(state in where for state in STATES_OF[verb])


def _agreed(verb: str, jobs: list[int]) -> bool:
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise GpudError(
            f"cannot {verb} {len(jobs)} jobs without asking: this is not a terminal",
            kind="usage",
            hint="add --yes if that is what you want",
        )
    question = f"{verb} {len(jobs)} jobs ({words.ids(jobs)})"
    screen_width = screen(sys.stderr).width
    sys.stderr.write(f"{screen(sys.stderr).cut(question, max(screen_width - 8, 20))}? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if answer.strip().lower() in ("y", "yes"):
        return True
    sys.stderr.write("nothing changed\n")
    return False


def _report(verb: str, reply: dict[str, Any], args: Args) -> int:
    jobs, refused = reply["jobs"], reply["refused"]
    if args["json"]:
        print_json(reply)
    elif jobs:
        which = f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs ({words.ids(jobs)})"
        print(f"{which}: {DONE[verb]}")
    elif not refused:
        print(f"nothing to {verb}")
    for one in refused:
        complain(GpudError(one["message"]))
    return 1 if refused else 0


YES = Option("yes", "do not ask, however many jobs it is", short="y")

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
    Verb(
        "pause",
        "Stop running jobs for a while: they keep their GPUs and the memory there.",
        changing("pause"),
        words="JOBS ...",
        least=1,
        most=None,
        options=(YES, JSON),
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
        options=(YES, JSON),
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
