"""`move` and `swap`: who is first in the queue."""

from __future__ import annotations

from gpud.amounts import format_priority
from gpud.client.connection import ask, connect
from gpud.ctl.agree import ALL_USERS, YES, all_users, chosen, report
from gpud.ctl.args import JSON, Option, Verb
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpud.ctl.args import Args

PLACES = ("before", "after", "first", "last")


def run_move(args: Args) -> int:
    place, where = _place(args)
    reply: dict[str, Any] = {"jobs": [], "refused": [], "priorities": []}
    with connect(args["socket"]) as connection:
        jobs = chosen(connection, "move", args, ("queued", "held"))
        if jobs is None:
            return 1
        if jobs:
            reply = connection.ask({"type": "move", "jobs": jobs} | where | all_users(args))
    done = f"{place} job {where[place]}" if place in where else f"{place} of all that wait"
    if reply["priorities"]:
        done += f", and now of its priority, {format_priority(reply['priorities'][0]['priority'])}"
    return report("move", reply, args, done)


def _place(args: Args) -> tuple[str, dict[str, Any]]:
    given = [place for place in PLACES if args[place]]
    if len(given) != 1:
        raise GpudError(
            "cannot move: it takes one of --before JOB, --after JOB, --first and --last",
            kind="usage",
            hint="see: gpuctl move --help",
        )
    (place,) = given
    return place, {place: args[place]} if place in ("before", "after") else {"to": place}


def run_swap(args: Args) -> int:
    reply = ask(args["socket"], {"type": "swap", "jobs": args.words})
    priorities = " and priorities" if reply["priorities"] else ""
    return report("swap", reply, args, f"have each other's places{priorities}")


VERBS = [
    Verb(
        "move",
        "Put jobs that wait elsewhere in the queue.",
        run_move,
        words="JOBS ...",
        least=1,
        most=None,
        options=(
            Option("before", "directly before this job", "JOB"),
            Option("after", "directly after this job", "JOB"),
            Option("first", "before all that wait"),
            Option("last", "behind all that wait"),
            ALL_USERS,
            YES,
            JSON,
        ),
        about="""\
Several jobs stay in their order. They get the priority of the job beside which
they stand then, and gpuctl says so. What is submitted later stands behind
what was moved to the end, unless its priority is higher. Jobs that are held,
or wait for something else, have their place too.""",
        examples=(
            "gpuctl move 42 --before 17",
            "gpuctl move 42 --first",
            "gpuctl move name:sweep --last --yes",
        ),
    ),
    Verb(
        "swap",
        "Let two jobs that wait change places.",
        run_swap,
        words="JOB JOB",
        least=2,
        most=2,
        options=(JSON,),
        about="Each gets the other's place, and its priority.",
        examples=("gpuctl swap 42 17", "gpuctl swap @ @~1"),
    ),
]
