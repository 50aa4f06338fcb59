"""`gpus`, `sources` and `source stop|start`: what jobs run on, and where they come from."""

from __future__ import annotations

from gpud.client.connection import ask
from gpud.ctl import words
from gpud.ctl.args import JSON, Verb, nearest
from gpud.ctl.render import Column, Screen, columns, print_json, screen, table
from gpud.ctl.trouble import remark
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gpud.ctl.args import Args
    from gpud.ctl.render import Cell

GPU_COLUMNS = (
    Column("GPU"),
    Column("MODEL", limit=26, drop=3),
    Column("STATE"),
    Column("FREE", right=True),
    Column("MEMORY", right=True),
    Column("UTIL", right=True),
    Column("TEMP", right=True, drop=2),
    Column("POWER", right=True, drop=1),
    Column("JOBS", limit=30),
    Column("PROBLEM", wide=1_000_000),  # on a terminal it stands in full below
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
    if gpu.get("quarantined"):
        return "quarantined", "red"
    if gpu.get("problem"):
        return ("in use" if gpu["problem"].startswith("used by") else "unavailable"), "yellow"
    if not gpu["jobs"]:
        return "free", "green"
    return ("full", "") if free_slots(gpu) == 0 else ("shared", "")


def takes_work(gpu: dict[str, Any]) -> bool:
    return not (gpu.get("problem") or gpu.get("quarantined"))


def trouble(gpu: dict[str, Any], on: Screen, busy: str = "") -> list[str]:
    """Why it takes no work, and the command where one helps: on the same line, if it fits. `busy`:
    the jobs that run on."""
    name, why, colour = words.gpu(gpu_name(gpu)), gpu["problem"], gpu_state(gpu)[1]
    start = f"{name}: {busy}; " if busy else f"{name}: "
    if not gpu.get("quarantined"):
        return [on.clean(start) + on.paint(on.clean(why), colour)]
    if not busy:
        start = f"{name} is "
    heal = on.clean(f"gpuctl gpus heal {','.join(gpu['ids']) or gpu['key']}")
    start, why = on.clean(start), on.clean(f"quarantined: {why}:")
    if on.width and columns(f"{start}{why} {heal}") > on.width:
        return [start + on.paint(why, colour), "  " + on.paint(heal, colour)]
    return [start + on.paint(f"{why} {heal}", colour)]


def free_slots(gpu: dict[str, Any]) -> int:
    return int(gpu["free_milli"]) // (1000 // max(int(gpu["slots"]), 1))


def gpu_name(gpu: dict[str, Any]) -> str:
    """The index where there is one; a MIG instance by its UUID."""
    return words.device(",".join(gpu["ids"]) or gpu["key"])


def gpu_lines(gpus: Sequence[dict[str, Any]], on: Screen) -> list[str]:
    """The table, then in full why a GPU takes no work and who else uses it."""
    lines = table(on, GPU_COLUMNS, [_gpu_row(gpu) for gpu in gpus], steady=True)
    if not on.width:
        return lines
    for gpu in gpus:
        name = words.gpu(gpu_name(gpu))
        if not takes_work(gpu):
            lines += trouble(gpu, on)
        for seen in gpu.get("gpus", ()):
            for process in seen["processes"]:
                if process["job"] <= 0 and f"pid {process['pid']} " not in gpu.get("problem", ""):
                    lines.append(on.clean(f"{name}: {_process(process)}"))
    return lines


def _gpu_row(gpu: dict[str, Any]) -> list[Cell]:
    seen = gpu.get("gpus", ())
    used, total = _sum(seen, "used_mib"), _sum(seen, "total_mib")
    util, power = _sum(seen, "util"), _sum(seen, "power_w")
    warm = [one["temperature_c"] for one in seen if one.get("temperature_c") is not None]
    return [
        gpu_name(gpu),
        gpu.get("model", "") + (" (guest)" if gpu.get("guest") else ""),
        gpu_state(gpu),
        f"{free_slots(gpu)} of {gpu['slots']}" if takes_work(gpu) else "-",
        f"{used / 1024:.1f}/{total / 1024:.0f}G" if total else "",
        f"{util / len(seen):.0f}%" if util is not None else "",
        f"{max(warm)}C" if warm else "",
        f"{power:.0f}W" if power is not None else "",
        words.ids(gpu["jobs"]),
        gpu.get("problem", ""),
    ]


def _sum(seen: Sequence[dict[str, Any]], field: str) -> Any:
    """None as soon as one of them is not known."""
    values = [one.get(field) for one in seen]
    return None if not values or None in values else sum(values)


def _process(process: dict[str, Any]) -> str:
    who = process["name"] or "?"
    if process["user"]:
        who += f" of {process['user']}"
    memory = "" if process["mib"] is None else f", {words.size(process['mib'])}"
    return f"also pid {process['pid']} ({who}{memory})"


def run_gpus(args: Args) -> int:
    if args.words:
        return _heal(args)
    reply = ask(args["socket"], {"type": "gpus"})
    if args["json"]:
        print_json(reply)
        return 0
    on = screen()
    for line in gpu_lines(reply["gpus"], on):
        print(line)
    if note := reply.get("note"):
        if on.width:
            print(on.clean(note))
        else:  # what reads a pipe wants the table alone
            remark(note)
    return 0


def _heal(args: Args) -> int:
    if args.words[0] != "heal":
        raise GpudError(
            f"cannot {args.words[0]} GPUs: only heal{nearest(args.words[0], ('heal',))}",
            kind="usage",
            hint="see: gpuctl gpus --help",
        )
    reply = ask(args["socket"], {"type": "heal", "gpus": args.words[1:]})
    if args["json"]:
        print_json(reply)
    elif reply["count"]:
        print(f"{words.plural(reply['count'], 'GPU')} healed: the next look decides")
    elif reply.get("afresh"):
        print("no GPU was quarantined; the driver is asked afresh")
    else:
        print("no GPU was quarantined")
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
        "Show the GPUs, who uses them, and why one takes no work.",
        run_gpus,
        words="[heal [GPU ...]]",
        most=None,
        options=(JSON,),
        about="""\
A GPU that broke takes no work until the machine is started again, or until
somebody says that it works: gpuctl gpus heal, of some or of all. GPU: as the
table has it, or the beginning of a UUID. The driver is asked afresh then.""",
        examples=("gpuctl gpus", "gpuctl gpus heal 3", "gpuctl gpus --json | jq .gpus[].key"),
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
