"""`gpuctl status`, and `gpuctl` alone: everything at one glance."""

from __future__ import annotations

from gpud.client.connection import ask
from gpud.ctl import words
from gpud.ctl.args import JSON, Verb
from gpud.ctl.gpus import free, free_share, gpu_name, has_room, kept_for, takes_work, trouble
from gpud.ctl.render import Column, Screen, print_json, screen, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpud.ctl.args import Args
    from gpud.ctl.render import Cell

RUNNING_SHOWN = 20

RUNNING = (
    Column("RUNNING", right=True),
    Column("GPU", limit=11),
    Column("TIME", right=True),
    Column("TRY", right=True, drop=2),
    Column("NAME", limit=20, drop=1),
    Column("COMMAND"),
)
ENDED = (
    Column("ENDED", right=True),
    Column("OUTCOME"),
    Column("EXIT"),
    Column("GPU", limit=11, drop=2),
    Column("TIME", right=True),
    Column("WHEN", right=True),
    Column("NAME", limit=20, drop=1),
    Column("COMMAND"),
)


def run(args: Args) -> int:
    reply = ask(args["socket"], {"type": "status"})
    if args["json"]:
        print_json(reply)
    else:
        on = screen()
        on.now_ms = reply["now_ms"]
        print("\n".join(lines(reply, on)))
    return 0


def lines(reply: dict[str, Any], on: Screen) -> list[str]:
    found = headline(reply, on)
    for problem in reply["problems"]:
        found += [on.paint(line, "red") for line in on.folded(problem)]
    for gpu in reply["gpus"]:
        found += _gpu(gpu, on)
    found += [_source(source, on) for source in reply["sources"]]
    running = reply["running"]
    if running:
        found += ["", *table(on, RUNNING, [_running(job, on) for job in running[:RUNNING_SHOWN]])]
        if len(running) > RUNNING_SHOWN:
            found.append(on.paint(f"and {len(running) - RUNNING_SHOWN} more: gpuctl ls", "dim"))
    if reply["recent"]:
        found += ["", *table(on, ENDED, [_ended(job, on) for job in reply["recent"]])]
    hints = _hints(reply)
    return [*found, "", *(on.paint(hint, "dim") for hint in hints)] if hints else found


def headline(reply: dict[str, Any], on: Screen) -> list[str]:
    """`gpud 0.1.0 on node7: 2 running, 31 queued, 4 succeeded, 1 failed`, on two lines if long."""
    live = [f"{reply['active']} running", f"{reply['queued']} queued"]
    if reply["held"]:
        live.append(f"{reply['held']} held")
    done = [(f"{number} {outcome}", outcome) for outcome, number in reply["done"].items() if number]
    if not (reply["active"] or reply["queued"] or reply["held"] or done):
        live = ["no jobs yet"]
    gpud = on.clean(f"gpud {reply['gpud']}")
    told = on.clean(f" on {reply['host']}: {', '.join(live)}")
    if reply["draining"]:
        told += on.paint("; drained: nothing new starts", "yellow")
    first = on.paint(gpud, "bold") + told
    if not done:
        return [first]
    second = ", ".join(on.paint(text, "red" if o in words.BAD else "") for text, o in done)
    long = len(gpud + told) + len(", ".join(text for text, _ in done)) + 2
    if reply["draining"] or (on.width and long > on.width):
        return [first, f"done: {second}"]
    return [f"{first}, {second}"]


def _gpu(gpu: dict[str, Any], on: Screen) -> list[str]:
    """The lane of the CPU only where something runs."""
    jobs, cpu = gpu["jobs"], gpu["key"] == "cpu"
    if cpu and not jobs:
        return []
    busy = f"{'job' if len(jobs) == 1 else 'jobs'} {words.ids(jobs)}" if jobs else ""
    if not takes_work(gpu):
        return trouble(gpu, on, busy)
    name = "CPU" if cpu else words.gpu(gpu_name(gpu))
    kept = kept_for(gpu) if has_room(gpu) else ""
    if not busy and kept:
        return [f"{name}: {on.paint(kept, 'cyan')}"]
    told = [f"{free(gpu, ' slots')} free"] if gpu["slots"] > 1 or free_share(gpu) else []
    more = f" ({', '.join([*told, *filter(None, [kept])])})" if told or kept else ""
    return [f"{name}: {busy or on.paint('free', 'green')}{more}"]


def _source(source: dict[str, Any], on: Screen) -> str:
    told = f"{source['waiting']} waiting of {source['taken']} taken"
    if source["stopped"]:
        told += on.paint("; stopped", "yellow")
    return f"source {on.clean(source['name'])}: {told}"


def _running(job: dict[str, Any], on: Screen) -> Sequence[Cell]:
    time = words.ran(job, on)
    return [
        (words.job_id(job), "green"),
        words.devices(words.lease_of(job)),
        time if job["phase"] == "running" else job["phase"],
        str(job["attempt"]) if job["attempt"] > 1 else "",
        job["name"],
        words.command(job),
    ]


def _ended(job: dict[str, Any], on: Screen) -> Sequence[Cell]:
    return [
        words.job_id(job),
        words.state_cell(job),
        words.exit_cell(job),
        words.devices(words.lease_of(job)),
        words.ran(job, on),
        (on.ago(job["ended_at_ms"]), "dim"),
        job["name"],
        words.command(job),
    ]


def _hints(reply: dict[str, Any]) -> list[str]:
    hints = [
        f"{number} {outcome}: gpuctl ls state:{outcome}"
        for outcome, number in reply["done"].items()
        if number and outcome in words.BAD
    ]
    if hints:
        hints.append("all of these once more: gpuctl retry state:bad")
    if paused := sum(job["phase"] == "paused" for job in reply["running"]):
        hints.append(f"{paused} paused, holding GPU memory: gpuctl continue state:paused")
    if reply["draining"]:
        hints.append("start jobs again: gpuctl undrain")
    elif reply["queued"] and not reply["active"]:
        hints.append("why nothing runs: gpuctl why state:queued")
    return hints


VERBS = [
    Verb(
        "status",
        "Show everything at one glance; the same as gpuctl alone.",
        run,
        options=(JSON,),
        examples=("gpuctl", "watch -c gpuctl status", "gpuctl status --json | jq .queued"),
    ),
]
