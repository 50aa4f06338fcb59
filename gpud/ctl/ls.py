"""`ls`: jobs as a table."""

from __future__ import annotations

from gpud.client.connection import ask, connect
from gpud.ctl import words
from gpud.ctl.args import JSON, Option, Verb, count
from gpud.ctl.render import Cell, Column, Screen, print_json, screen, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpud.client.connection import Connection
    from gpud.ctl.args import Args

LIMIT_ON_TERMINAL = 50

COLUMNS = (
    Column("ID", right=True, limit=24),
    Column("STATE"),
    Column("EXIT"),
    Column("GPU", limit=11),
    Column("TRY", right=True, drop=5),
    Column("PRIO", right=True, drop=4),
    Column("TIME", right=True),
    Column("ENDED", right=True, drop=1),
    Column("USER", limit=12, drop=3),
    Column("NAME", limit=20, drop=2),
    Column("SOURCE", limit=16, drop=6),
    Column("WHY", limit=44, drop=7, wide=120),
    Column("COMMAND"),
)
USER = [column.head for column in COLUMNS].index("USER")


def row(job: dict[str, Any], on: Screen) -> list[Cell]:
    """TIME is how long it ran or has run, and how long it has waited while it waits."""
    done = bool(job["outcome"])
    return [
        words.job_id(job),
        state_cell(job),
        words.exit_cell(job) if done else "",
        words.devices(words.lease_of(job)),
        str(job["attempt"]) if job["attempt"] > 1 else "",
        words.priority(job["priority"]),
        words.ran(job, on) if done or job["phase"] else words.waited(job, on),
        (on.ago(job["ended_at_ms"]), "dim") if done and job["ended_at_ms"] else "",
        job.get("user", ""),
        job["name"],
        job["source"],
        (job["why"] or job["reason"], "dim"),
        words.command(job),
    ]


def state_cell(job: dict[str, Any]) -> Cell:
    """`queued`, or of elements of an array that have one line `97 queued`."""
    word, colour = words.state_cell(job)
    many = job.get("count", 1)
    return (f"{many} {word}", colour) if many > 1 else (word, colour)


def jobs_table(jobs: Sequence[dict[str, Any]], on: Screen) -> list[str]:
    """USER is there where several share the daemon."""
    columns: Sequence[Column] = COLUMNS
    rows = [row(job, on) for job in jobs]
    if not any("user" in job for job in jobs):
        columns = (*COLUMNS[:USER], *COLUMNS[USER + 1 :])
        rows = [[*cells[:USER], *cells[USER + 1 :]] for cells in rows]
    return table(on, columns, rows, steady=True)


def list_all(connection: Connection, jobs: Sequence[str]) -> list[dict[str, Any]]:
    """All that the selectors mean, by id: one answer holds 10,000 at most."""
    request: dict[str, Any] = {"type": "ls", "jobs": jobs, "limit": 0}
    found: list[dict[str, Any]] = []
    while True:
        reply = connection.ask(request)
        found += reply["jobs"]
        if not reply["more"] or not reply["jobs"]:
            return found
        request["after"] = reply["jobs"][-1]["id"]


def run_ls(args: Args) -> int:
    on = screen()
    limit = args["limit"]
    if limit is None:  # what reads a pipe cannot ask for more
        limit = LIMIT_ON_TERMINAL if on.width and not args["all"] and not args["json"] else 0
    jobs = args.words or (["all"] if args["all"] else [])
    if jobs and not limit:
        with connect(args["socket"]) as connection:
            reply: dict[str, Any] = {"jobs": list_all(connection, jobs), "more": 0}
    else:
        reply = ask(args["socket"], {"type": "ls", "jobs": jobs, "limit": limit})
    if args["json"]:
        print_json(reply)
        return 0
    if reply["jobs"]:
        print("\n".join(jobs_table(reply["jobs"], on)))
    elif on.width:
        print("no such jobs" if args.words else 'no jobs yet; try: gpuctl submit "nvidia-smi"')
    if reply["more"]:
        hint = "--limit 0 shows all" if limit else "gpuctl ls --all"
        print(on.paint(f"and {reply['more']} more: {hint}", "dim"))
    return 0


VERBS = [
    Verb(
        "ls",
        "List jobs: the last ended ones, what runs and what waits.",
        run_ls,
        words="[JOBS ...]",
        most=None,
        options=(
            Option("all", "every job that is kept"),
            Option("limit", "at most N; 0: no limit (default: 50, in a pipe 0)", "N", count),
            JSON,
        ),
        about="""\
JOBS: 42, 3-9, @ (the last one), @~2, name:NAME, state:failed, source:NAME,
group:NAME, label:KEY=VALUE, user:NAME, all. STATE: queued, held, active or
done; starting, running, paused, stopping or finishing (its processes are gone;
a look at its GPUs is awaited); succeeded, failed, killed, timed-out, cancelled,
not-started or lost; bad is failed, killed, timed-out, not-started and lost.
TIME is how long a job ran, or has waited while it waits. Of a long command
there is only the beginning; without JOBS there are at most 10,000 lines. With
--limit N what runs comes first, then what waits, then the last ended jobs,
which have N/5 lines in any case.""",
        examples=(
            "gpuctl ls state:failed",
            "gpuctl ls state:running",
            "gpuctl ls name:sweep --json | jq .jobs[].id",
        ),
    ),
]
