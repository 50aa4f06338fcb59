"""`ping`, `drain`, `undrain`, `reload`, `metrics`: about the daemon as a whole. `ping` is hot."""

from __future__ import annotations

import time

from gpud.client.connection import ask, connect
from gpud.ctl.args import JSON, Option, Verb
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpud.client.connection import Connection
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
    with connect(args["socket"]) as connection:
        reply = connection.ask({"type": "drain"})
        if args["wait"]:
            wait_until_nothing_runs(connection)
            reply["active"] = 0
    if args["json"]:
        from gpud.ctl.render import print_json

        print_json(reply)
    else:
        active = reply["active"]
        still = {0: "nothing runs", 1: "1 job runs on"}.get(active, f"{active} jobs run on")
        print(f"drained: nothing new starts, {still}")
    return 0


def wait_until_nothing_runs(connection: Connection) -> None:
    """Of a daemon that is drained. Over its restarts, too: the next one has the same jobs."""
    from gpud.client.connection import ConnectionLost
    from gpud.client.patience import reconnect

    while True:
        try:
            if not connection.ask({"type": "status"})["active"]:
                return
            connection.ask({"type": "wait", "jobs": ["state:active"]})
        except ConnectionLost:
            connection = reconnect(connection.path)
        except GpudError as error:
            if error.kind != "not-found":  # they have ended between the two questions
                raise


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
        options=(Option("wait", "until nothing runs any more, also over restarts of gpud"), JSON),
        about="Holds over restarts of gpud, until gpuctl undrain. Submits are taken.",
        examples=("gpuctl drain --wait && sudo reboot",),
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
