"""`groups`, `group` and `users`: what holds jobs back together, and what each has had."""

from __future__ import annotations

from gpud.client.connection import ask
from gpud.ctl.args import JSON, Option, Verb, count
from gpud.ctl.render import Column, Screen, duration, print_json, screen, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpud.ctl.args import Args
    from gpud.ctl.render import Cell

WORDS = ("none", "default")
GROUP_COLUMNS = (
    Column("GROUP", limit=30),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("HELD", right=True),
    Column("DONE", right=True),
    Column("FAILED", right=True),
    Column("FAILS", right=True),
    Column("WINDOW", limit=40, wide=100),
)
USER_COLUMNS = (
    Column("USER", limit=30),
    Column("RUNNING", right=True),
    Column("WAITING", right=True),
    Column("HELD", right=True),
    Column("WEIGHT", right=True),
    Column("USED", right=True),
    Column("WINDOW", limit=40, wide=100),
)


def run_groups(args: Args) -> int:
    reply = ask(args["socket"], {"type": "groups"})
    if args["json"]:
        print_json(reply)
        return 0
    on = screen()
    if reply["groups"]:
        print("\n".join(group_lines(reply["groups"], on)))
    elif on.width:
        print("no groups; try: gpuctl submit --group NAME COMMAND")
    return 0


def run_group(args: Args) -> int:
    request: dict[str, Any] = {"type": "group", "name": args.words[0]}
    if args["limit"] is not None:
        request["limit"] = args["limit"]
    if args["max-fails"] is not None:
        request["max_fails"] = args["max-fails"]
    reply = ask(args["socket"], request)
    if args["json"]:
        print_json(reply)
        return 0
    print("\n".join(group_lines([reply["group"]], screen())))
    return 0


def run_users(args: Args) -> int:
    reply = ask(args["socket"], {"type": "users"})
    if args["json"]:
        print_json(reply)
        return 0
    on = screen()
    print("\n".join(user_lines(reply["users"], on)))
    if reply["half_life_s"] and on.width:
        half = duration(reply["half_life_s"])
        print(on.paint(f"USED: hours of GPUs, of which half is forgotten every {half}", "dim"))
    return 0


def group_lines(groups: Sequence[dict[str, Any]], on: Screen) -> list[str]:
    """The table, then in full what keeps one of them from going on."""
    lines = table(on, GROUP_COLUMNS, [_group_row(group) for group in groups], steady=True)
    for group in groups if on.width else ():
        name = on.clean(group["name"])
        if has_tripped(group):
            jobs = "1 job" if group["fails"] == 1 else f"{group['fails']} jobs"
            said = f"{name}: held since {jobs} failed: gpuctl release group:{name}"
            lines.append(on.paint(said, "red"))
        if group.get("closed"):
            lines.append(on.paint(on.clean(f"{name}: waits for {group['closed']}"), "yellow"))
    return lines


def user_lines(users: Sequence[dict[str, Any]], on: Screen) -> list[str]:
    lines = table(on, USER_COLUMNS, [_user_row(user) for user in users], steady=True)
    for user in users if on.width else ():
        if user.get("closed"):
            told = f"{user['user']}: waits for {user['closed']}"
            lines.append(on.paint(on.clean(told), "yellow"))
    return lines


def has_tripped(group: dict[str, Any]) -> bool:
    return 0 < int(group.get("max_fails", 0)) <= int(group.get("fails", 0))


def _group_row(group: dict[str, Any]) -> list[Cell]:
    most, fails = group.get("max_fails", 0), group.get("fails", 0)
    return [
        group["name"],
        _running(group),
        str(group["waiting"]),
        str(group["held"] or ""),
        str(group["done"] or ""),
        (str(group["failed"] or ""), "red"),
        (f"{fails} of {most}" if most else "", "red" if has_tripped(group) else ""),
        (group.get("window", ""), "yellow" if group.get("closed") else ""),
    ]


def _user_row(user: dict[str, Any]) -> list[Cell]:
    used_s = user.get("used_s")
    return [
        user["user"],
        _running(user),
        str(user["waiting"]),
        str(user["held"] or ""),
        "" if used_s is None else f"{user.get('weight', 1.0):g}",
        "" if used_s is None else f"{used_s / 3600:.1f}h",
        (user.get("window", ""), "yellow" if user.get("closed") else ""),
    ]


def _running(of: dict[str, Any]) -> str:
    limit = of["limit"]
    return str(of["running"]) if limit is None else f"{of['running']} of {limit}"


def _limit(text: str) -> int | str:
    if text in WORDS:
        return text
    try:
        return count(text)
    except ValueError as error:
        raise ValueError("write a number, none, or default") from error


VERBS = [
    Verb(
        "groups",
        "Show the groups: who runs, waits and failed, and their limits.",
        run_groups,
        options=(JSON,),
        about="""\
RUNNING: of how many that may. FAILS: since a job of the group was released, of
how many until the rest is held.""",
        examples=("gpuctl groups", "gpuctl ls group:lr", "gpuctl release group:lr"),
    ),
    Verb(
        "group",
        "Show a group, or say how many of its jobs may run, or fail.",
        run_group,
        words="NAME",
        least=1,
        most=1,
        options=(
            Option("limit", "at most N run at a time; none, default", "N", _limit),
            Option("max-fails", "after N fails hold the rest; none, default", "N", _limit),
            JSON,
        ),
        about="""\
What is said here stays until something else is said, over restarts of gpud, and
goes before the configuration; default: as configured. A lower limit stops
nothing that runs. Jobs that failed, were killed by a signal, timed out or were
lost count as fails, once they are not tried again.""",
        examples=("gpuctl group lr --limit 4 --max-fails 3", "gpuctl group lr --limit default"),
    ),
    Verb(
        "users",
        "Show the users: who runs and waits, and what they have used.",
        run_users,
        options=(JSON,),
        about="""\
With a fair share, of jobs of the same priority those of the user go first who
has used less for the weight.""",
        examples=("gpuctl users", "gpuctl ls user:alice", "gpuctl users --json | jq .users"),
    ),
]
