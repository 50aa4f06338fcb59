"""`gpus`, `sources` and `source stop|start`: what jobs run on, and where they come from."""

from __future__ import annotations

from gpud.client.connection import ask
from gpud.ctl import words
from gpud.ctl.args import JSON, Verb, nearest
from gpud.ctl.render import Column, Screen, print_json, screen, table
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpud.ctl.args import Args
    from gpud.ctl.render import Cell

GPU_COLUMNS = (
    Column("GPU"),
    Column("STATE"),
    Column("FREE", right=True),
    Column("JOBS", limit=30),
    Column("PROBLEM"),
)
SOURCE_COLUMNS = (
    Column("SOURCE"),
    Column("KIND", drop=2),
    Column("STATE"),
    Column("WAITING", right=True),
    Column("TAKEN", right=True),
    Column("READ", right=True, drop=1),
    Column("TARGET"),
)


def gpu_state(gpu: dict[str, Any]) -> tuple[str, str]:
    if gpu.get("problem"):
        return "unavailable", "yellow"
    if not gpu["jobs"]:
        return "free", "green"
    return ("full", "") if free_slots(gpu) == 0 else ("shared", "")


def free_slots(gpu: dict[str, Any]) -> int:
    return int(gpu["free_milli"]) // (1000 // max(int(gpu["slots"]), 1))


def gpu_lines(gpus: Sequence[dict[str, Any]], on: Screen) -> list[str]:
    rows: list[list[Cell]] = [
        [
            gpu["key"],
            gpu_state(gpu),
            f"{free_slots(gpu)} of {gpu['slots']}",
            words.ids(gpu["jobs"]),
            (gpu.get("problem", ""), "yellow"),
        ]
        for gpu in gpus
    ]
    return table(on, GPU_COLUMNS, rows, steady=True)


def run_gpus(args: Args) -> int:
    reply = ask(args["socket"], {"type": "gpus"})
    if args["json"]:
        print_json(reply)
        return 0
    for line in gpu_lines(reply["gpus"], screen()):
        print(line)
    return 0


def run_sources(args: Args) -> int:
    reply = ask(args["socket"], {"type": "sources"})
    if args["json"]:
        print_json(reply)
        return 0
    on = screen()
    if reply["sources"]:
        print("\n".join(source_lines(reply["sources"], on)))
    elif on.width:
        print("no sources: jobs come from gpuctl submit only")
    return 0


def source_lines(sources: Sequence[dict[str, Any]], on: Screen) -> list[str]:
    """The table, then in full what each of them has to say."""
    rows = [_source_row(source, on) for source in sources]
    lines = table(on, SOURCE_COLUMNS, rows, steady=True)
    for source in sources:
        name = source["name"]
        if source["problem"]:
            lines.append(on.paint(on.clean(f"{name}: {source['problem']}"), "red"))
        if source["note"]:
            lines.append(on.clean(f"{name}: {source['note']}"))
    return lines


def _source_row(source: dict[str, Any], on: Screen) -> list[Cell]:
    state = ("stopped", "yellow") if source["stopped"] else ("reading", "green")
    return [
        source["name"],
        source["kind"],
        ("problem", "red") if source["problem"] and not source["stopped"] else state,
        str(source["waiting"]),
        str(source["taken"]),
        on.ago(source["last_read_at_ms"]) if source["last_read_at_ms"] else "",
        source["target"],
    ]


def run_source(args: Args) -> int:
    what, name = args.words
    if what not in ("stop", "start"):
        raise GpudError(
            f"cannot {what} a source: only stop and start{nearest(what, ('stop', 'start'))}",
            kind="usage",
            hint="see: gpuctl source --help",
        )
    reply = ask(args["socket"], {"type": f"source-{what}", "name": name})
    if args["json"]:
        print_json(reply)
    elif what == "stop":
        print(f"source {name} stopped: nothing more is read from it; its jobs go on")
    else:
        print(f"source {name} started")
    return 0


VERBS = [
    Verb(
        "gpus",
        "Show the GPUs, their free slots and their jobs.",
        run_gpus,
        options=(JSON,),
        examples=("gpuctl gpus", "gpuctl gpus --json | jq .gpus[].key"),
    ),
    Verb(
        "sources",
        "Show where jobs come from, and whether that works.",
        run_sources,
        options=(JSON,),
        examples=("gpuctl sources",),
    ),
    Verb(
        "source",
        "Stop or start reading a source.",
        run_source,
        words="stop|start NAME",
        least=2,
        most=2,
        options=(JSON,),
        about="A stopped source stays stopped over restarts of gpud; its jobs go on.",
        examples=("gpuctl source stop night", "gpuctl source start night"),
    ),
]
