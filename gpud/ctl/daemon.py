"""`ping`, `drain`, `undrain`, `reload`, `metrics`: about the daemon as a whole. `ping` is hot."""

from __future__ import annotations

import time

from gpud.client.connection import ask
from gpud.ctl.args import JSON, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpud.ctl.args import Args


def _ask(args: Args, request: dict[str, Any]) -> dict[str, Any] | None:
    """The reply, or None when it has been printed as JSON."""
    reply = ask(args["socket"], request)
    if not args["json"]:
        return reply
    from gpud.ctl.render import print_json

    print_json(reply)
    return None


def run_ping(args: Args) -> int:
    if reply := _ask(args, {"type": "ping"}):
        from gpud.ctl.render import duration

        up = duration(time.time() - reply["started_at_ms"] / 1000)
        print(f"gpud {reply['gpud']} on {reply['host']} answers: pid {reply['pid']}, up {up}")
    return 0


def run_drain(args: Args) -> int:
    if reply := _ask(args, {"type": "drain"}):
        active = reply["active"]
        still = {0: "nothing runs", 1: "1 job runs on"}.get(active, f"{active} jobs run on")
        print(f"drained: nothing new starts, {still}")
    return 0


def run_undrain(args: Args) -> int:
    if _ask(args, {"type": "undrain"}):
        print("undrained: jobs start again")
    return 0


def run_reload(args: Args) -> int:
    if reply := _ask(args, {"type": "reload"}):
        from gpud.ctl.render import screen

        on = screen()
        print("\n".join(map(on.clean, reply["changes"])) or "reloaded: nothing has changed")
    return 0


def run_metrics(args: Args) -> int:
    if reply := _ask(args, {"type": "metrics"}):
        print(reply["text"], end="")
    return 0


VERBS = [
    Verb(
        "ping",
        "Say whether gpud answers.",
        run_ping,
        options=(JSON,),
        examples=("gpuctl ping", "until gpuctl ping; do sleep 1; done"),
    ),
    Verb(
        "drain",
        "Start nothing new; running jobs go on.",
        run_drain,
        options=(JSON,),
        about="Holds over restarts of gpud, until gpuctl undrain. Submits are taken.",
        examples=("gpuctl drain && gpuctl wait state:active",),
    ),
    Verb(
        "undrain",
        "Start jobs again.",
        run_undrain,
        options=(JSON,),
        examples=("gpuctl undrain",),
    ),
    Verb(
        "reload",
        "Read the configuration again, and say what is different.",
        run_reload,
        options=(JSON,),
        about="Running jobs go on. Says what needs a restart of gpud.",
        examples=("gpuctl reload",),
    ),
    Verb(
        "metrics",
        "Print what gpud measures, as OpenMetrics text.",
        run_metrics,
        options=(JSON,),
        about="Counters begin at 0 when gpud is started. For Prometheus see docs/metrics.md.",
        examples=("gpuctl metrics", "gpuctl metrics | grep ^gpud_jobs"),
    ),
]
