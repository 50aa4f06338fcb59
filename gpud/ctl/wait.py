"""`gpuctl wait`: until jobs are done, with their exit status as its own.

Its own trouble has statuses that jobs seldom have (250 to 254). It waits over restarts of gpud.
"""

from __future__ import annotations

from gpud.client import patience
from gpud.ctl import words
from gpud.ctl.args import JSON, Verb
from gpud.ctl.render import print_json, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpud.ctl.args import Args

TROUBLE = {"unreachable": 250, "refused": 251, "usage": 252, "not-found": 253}
OTHER_TROUBLE = 254
STATUS_OF = {"timed-out": 124, "lost": 125, "cancelled": 125, "not-started": 127}
LINES_SHOWN = 20


def run(args: Args) -> int:
    # `@` and `state:` may mean other jobs when they are asked again after a restart.
    lasting = not any(word.startswith(("@", "state:")) for word in args.words)
    reply = patience.wait(args["socket"], args.words, over_restarts=lasting)
    jobs = sorted(reply["jobs"], key=lambda end: int(end["job"]))
    if args["json"]:
        print_json(reply)
    else:
        _report(jobs)
    return next((status for status in map(status_of, jobs) if status), 0)


def status_of(end: dict[str, Any]) -> int:
    """As a shell would have it: the exit status, or 128 + signal."""
    outcome = end["outcome"]
    if outcome == "succeeded":
        return 0
    if outcome in STATUS_OF:
        return STATUS_OF[outcome]
    if end["signal"] is not None:
        return 128 + int(end["signal"])
    return int(end["exit_code"] or 1)


def _report(jobs: list[dict[str, Any]]) -> None:
    """On a terminal only: scripts have the status."""
    on = screen()
    if not on.width:
        return
    bad = [end for end in jobs if end["outcome"] != "succeeded"]
    for end in (jobs if len(jobs) <= LINES_SHOWN else bad)[:LINES_SHOWN]:
        colour = words.COLOUR_OF.get(end["outcome"], "")
        print(f"job {end['job']}: {on.paint(words.ending(end), colour)}")
    if len(jobs) > LINES_SHOWN:
        print(f"{len(jobs) - len(bad)} of {len(jobs)} jobs succeeded")


VERBS = [
    Verb(
        "wait",
        "Wait until jobs are done; exit as the job did.",
        run,
        words="JOBS ...",
        least=1,
        most=None,
        options=(JSON,),
        about="""\
Exit status: the job's own, 128 + signal, 124 timed out, 125 lost or
cancelled, 127 not started; of several jobs the first in id order that is not
0. Trouble of gpuctl itself: 250 cannot reach gpud, 251 refused, 252 usage,
253 not found, 254 other.""",
        examples=("gpuctl wait 42 && gpuctl submit python eval.py", "gpuctl wait name:sweep"),
        exits=TROUBLE,
        other=OTHER_TROUBLE,
    ),
]
