"""The one rule for every verb that changes jobs: more than ten of them are not touched unasked.

Used by change.py, edit.py and move.py. On a terminal a person is asked, elsewhere --yes must be
there. What a range, a name, a state, a source or `all` covers is looked up first, and then exactly
the jobs that were asked about are sent: one that came meanwhile is not touched.
"""

from __future__ import annotations

import os
import sys

from gpud.ctl import words
from gpud.ctl.args import Option
from gpud.ctl.ls import list_all
from gpud.ctl.render import print_json, screen
from gpud.ctl.trouble import complain, in_words_of, remark
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from gpud.client.connection import Connection
    from gpud.ctl.args import Args

MOST = 10  # jobs without asking
TOLD = 10  # refusals, each with its sentence
ALL_USERS = Option("all-users", "others' jobs too, as an administrator")
YES = Option("yes", f"do not ask, even if it is more than {MOST} jobs", short="y")


def by_itself(selector: str) -> bool:
    """A job, an array, or one element of it."""
    return (selector.partition("[")[0].isdecimal() and "-" not in selector) or selector[:1] == "@"


def chosen(
    connection: Connection, verb: str, args: Args, states: Sequence[str]
) -> list[str] | None:
    """The selectors to send; None when the person said no. `states`: those in which the verb can do
    anything about a job (or its phase); what else falls under a selector is left alone."""
    single = [*dict.fromkeys(word for word in args.words if by_itself(word))]
    broad = [word for word in args.words if not by_itself(word)]
    every = means_all(args)
    found = _look_up(connection, verb, broad, states, every) if broad else []
    if not args["yes"]:
        covered = {*found, *_covered(connection, verb, single, states)}
        if len(covered) > MOST and not _agreed(verb, len(covered), words.ids(covered)):
            return None
    return single + [f"{low}-{high}" for low, high in words.runs(found)]


def _covered(
    connection: Connection, verb: str, single: list[str], states: Sequence[str]
) -> Iterable[int]:
    """What these name: an array is many."""
    try:
        jobs = list_all(connection, single) if single else []
    except GpudError:
        return ()  # the verb itself says better what is wrong
    return (n for job in jobs if applies(verb, job, states) for n in words.each_id(job))


def means_all(args: Args) -> bool:
    """Whether what falls under something is meant whosever it is."""
    return bool(args["all-users"]) or any(map(_is_of_another, args.words))


def all_users(args: Args) -> dict[str, bool]:
    """What a request says of that."""
    return {"all_users": True} if means_all(args) else {}


def _is_of_another(word: str) -> bool:
    kind, _, name = word.partition(":")
    if kind != "user" or name == str(os.getuid()):
        return False
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid != os.getuid()
    except (KeyError, ValueError):
        return True


def _look_up(
    connection: Connection, verb: str, selectors: list[str], states: Sequence[str], every: bool
) -> list[int]:
    if "all" in selectors:  # not the whole history, where there is nothing to do about it
        rest = [selector for selector in selectors if selector != "all"]
        selectors = [f"state:{state}" for state in states] + rest
    try:
        jobs = list_all(connection, selectors)
    except GpudError as error:
        raise in_words_of(verb, error, "list") from error
    meant = [job for job in jobs if applies(verb, job, states)]
    own = [job for job in meant if every or not job.get("foreign")]
    if left := sum(job.get("count", 1) for job in meant) - sum(job.get("count", 1) for job in own):
        remark(f"{words.plural(left, 'job')} of other users left alone")
    return [n for job in own for n in words.each_id(job)]


def applies(verb: str, job: dict[str, Any], states: Sequence[str]) -> bool:
    able = verb != "checkpoint" or bool(job.get("checkpoint"))
    return able and not {job["state"], job["phase"]}.isdisjoint(states)


def _agreed(verb: str, count: int, which: str) -> bool:
    return agreed(f"{verb} {count} jobs", f"{verb} {count} jobs ({which})")


def agreed(what: str, question: str) -> bool:
    """Whether the person at the terminal says yes."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise GpudError(
            f"cannot {what} without asking: this is not a terminal",
            kind="usage",
            hint="add --yes if that is what you want",
        )
    screen_width = screen(sys.stderr).width
    sys.stderr.write(f"{screen(sys.stderr).cut(question, max(screen_width - 8, 20))}? [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if answer.strip().lower() in ("y", "yes"):
        return True
    sys.stderr.write("nothing changed\n")
    return False


def report(verb: str, reply: dict[str, Any], args: Args, done: str) -> int:
    """What became of them; gives the exit status."""
    jobs, refused = reply["jobs"], reply["refused"]
    if args["json"]:
        print_json(reply)
    elif jobs:
        which = f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs ({words.ids(jobs)})"
        print(f"{which}: {done}")
    elif not refused:
        print(f"nothing to {verb}")
    for one in refused[:TOLD]:
        complain(GpudError(one["message"]))
    if refused[TOLD:]:
        remark(f"{len(refused) - TOLD} more were refused; --json has all of them")
    return 1 if refused else 0
