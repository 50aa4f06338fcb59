"""`sources` and `source stop|start`: where jobs come from, and whether that works."""

from __future__ import annotations

from gpud.client.connection import ask
from gpud.ctl.args import JSON, Verb, nearest
from gpud.ctl.render import Column, Screen, print_json, screen, table
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpud.ctl.args import Args
    from gpud.ctl.render import Cell

SOURCE_COLUMNS = (
    Column("SOURCE"),
    Column("KIND", drop=2),
    Column("STATE"),
    Column("WAITING", right=True),
    Column("TAKEN", right=True),
    Column("READ", right=True, drop=1),
    Column("TARGET"),
)


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
