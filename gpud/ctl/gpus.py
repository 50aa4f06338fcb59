"""`gpus`: what jobs run on, who else uses it, and why it takes no work."""

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

LEFT_OVER = 9  # thousandths: less than a per cent
GPU_COLUMNS = (
    Column("GPU"),
    Column("MODEL", limit=40, drop=4),
    Column("STATE"),
    Column("FREE", right=True),
    Column("MEMORY", right=True),
    Column("PROMISED", right=True, drop=1),
    Column("UTIL", right=True),
    Column("TEMP", right=True, drop=3),
    Column("POWER", right=True, drop=2),
    Column("JOBS", limit=30),
    Column("PROBLEM", wide=1_000_000),  # on a terminal it stands in full below
)


def gpu_state(gpu: dict[str, Any]) -> tuple[str, str]:
    if gpu.get("quarantined"):
        return "quarantined", "red"
    if gpu.get("problem"):
        return ("in use" if gpu["problem"].startswith("used by") else "unavailable"), "yellow"
    if not has_room(gpu):
        return "full", ""
    if kept := kept_for(gpu):
        return kept, "cyan"
    return ("shared", "") if gpu["jobs"] else ("free", "green")


def takes_work(gpu: dict[str, Any]) -> bool:
    return not (gpu.get("problem") or gpu.get("quarantined"))


def trouble(gpu: dict[str, Any], on: Screen, busy: str = "") -> list[str]:
    """Why it takes no work, and the command where one helps: on the same line, if it fits. `busy`:
    the jobs that run on."""
    name, why, colour = words.gpu(gpu_name(gpu)), gpu["problem"], gpu_state(gpu)[1]
    start = f"{name}: {busy}; " if busy else f"{name}: "
    if not gpu.get("quarantined"):
        return [on.paint(line, colour) for line in on.folded(f"{start}{why}")]
    if not busy:
        start = f"{name} is "
    heal = on.clean(f"gpuctl gpus heal {','.join(gpu['ids']) or gpu['key']}")
    told = on.clean(f"{start}quarantined: {why}:")
    if on.width and columns(f"{told} {heal}") > on.width:
        return [on.paint(line, colour) for line in (*on.folded(told), f"  {heal}")]
    return [on.paint(f"{told} {heal}", colour)]


def slot_milli(gpu: dict[str, Any]) -> int:
    return 1000 // max(int(gpu["slots"]), 1)


def free_slots(gpu: dict[str, Any]) -> int:
    return int(gpu["free_milli"]) // slot_milli(gpu)


def free_share(gpu: dict[str, Any]) -> int:
    """Thousandths, where a job has a share that is no slot; else 0. Of thirds and the like there
    is always a bit left over."""
    part = int(gpu["free_milli"]) % slot_milli(gpu)
    return int(gpu["free_milli"]) if part > max(1000 % slot_milli(gpu), LEFT_OVER) else 0


def has_room(gpu: dict[str, Any]) -> bool:
    return free_slots(gpu) > 0 or free_share(gpu) > 0


def free(gpu: dict[str, Any], of: str = "") -> str:
    """ "1 of 2", or of a GPU that is shared otherwise "70%". `of`: what these are, "slots"."""
    if share := free_share(gpu):
        return f"{share // 10}%"
    return f"{free_slots(gpu)} of {gpu['slots']}{of}"


def kept_for(gpu: dict[str, Any]) -> str:
    """ "kept for job 42": what is free of it is for this one, which waits for more."""
    job = gpu.get("kept_for", 0)
    return f"kept for job {job}" if job else ""


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
                    lines += on.folded(f"{name}: {_process(process)}")
    return lines


def names_by_uuid(socket: str | None) -> dict[str, str]:
    """What the GPUs are called in the table; asks the daemon. Empty when that does not work."""
    try:
        gpus = ask(socket, {"type": "gpus"})["gpus"]
    except GpudError:
        return {}
    found = {}
    for gpu in gpus:
        for name, seen in zip(gpu["ids"], gpu.get("gpus", ()), strict=False):
            found[seen["uuid"]] = name
    return found


def _gpu_row(gpu: dict[str, Any]) -> list[Cell]:
    seen = gpu.get("gpus", ())
    used, total = _sum(seen, "used_mib"), _sum(seen, "total_mib")
    promised = (gpu.get("promised_mib") or 0) * max(len(seen), 1)
    util, power = _sum(seen, "util"), _sum(seen, "power_w")
    warm = [one["temperature_c"] for one in seen if one.get("temperature_c") is not None]
    return [
        gpu_name(gpu),
        gpu.get("model", "") + (" (guest)" if gpu.get("guest") else ""),
        gpu_state(gpu),
        free(gpu) if takes_work(gpu) else "-",
        memory(used, total),
        f"{promised / 1024:.1f}".removesuffix(".0") + "G" if promised else "",
        f"{util / len(seen):.0f}%" if util is not None else "",
        f"{max(warm)}C" if warm else "",
        f"{power:.0f}W" if power is not None else "",
        words.ids(gpu["jobs"]),
        gpu.get("problem", ""),
    ]


def memory(used_mib: int | None, total_mib: int | None) -> str:
    """ "2.0/80G"; None: the driver does not say, or says more than there is."""
    if not total_mib:
        return ""
    used = "?" if used_mib is None else f"{used_mib / 1024:.1f}"
    return f"{used}/{total_mib / 1024:.0f}G"


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
            print("\n".join(on.folded(note)))
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
table has it, or the beginning of a UUID. The driver is asked afresh then.
MEMORY is what is used of all there is, PROMISED what jobs were promised. A
GPU that is kept for a job which waits for more starts no other.""",
        examples=("gpuctl gpus", "gpuctl gpus heal 3", "gpuctl gpus --json | jq .gpus[].key"),
    ),
]
