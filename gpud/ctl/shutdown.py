"""`shutdown`: gpud ends, and says so. Whose process it is, the kernel decides, as for `kill`.

The process is the one that the kernel names at the other end of the socket; it gets TERM, as from
`systemctl stop`. With --cancel nothing runs when it ends.
"""

from __future__ import annotations

import os
import select
import signal

from gpud.client.connection import connect
from gpud.ctl.args import Option, Verb
from gpud.errors import GpudError, why_os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpud.client.connection import Connection
    from gpud.ctl.args import Args

ENDS_WITHIN_S = 60.0
NOTHING_RUNS = "not-found"  # what a selector that no job fits is answered with


def run(args: Args) -> int:
    with connect(args["socket"]) as connection:
        pid = connection.peer_pid()
        try:
            process = os.pidfd_open(pid)
            signal.pidfd_send_signal(process, 0)
        except OSError as error:
            raise GpudError(
                f"cannot end gpud (pid {pid}): {why_os(error)}",
                hint="as its user, or as root: sudo gpuctl shutdown, or systemctl stop gpud",
            ) from error
        if args["cancel"] and not _cancel_all(connection, args):
            return 1
        active = connection.ask({"type": "status"})["active"]
        signal.pidfd_send_signal(process, signal.SIGTERM)
    if not select.select([process], [], [], ENDS_WITHIN_S)[0]:
        raise GpudError(f"cannot end gpud (pid {pid}): it is still there after a minute")
    still = {0: "nothing runs", 1: "1 job runs on"}.get(active, f"{active} jobs run on")
    print(f"gpud has ended; {still}")
    if args["cancel"]:
        print("it is drained: after its next start, gpuctl undrain")
    return 0


def _cancel_all(connection: Connection, args: Args) -> bool:
    """What runs is over, and nothing new starts; what waits is kept. False: the person said no."""
    from gpud.ctl.agree import ALL_USERS, chosen
    from gpud.ctl.daemon import wait_until_nothing_runs

    args.words[:] = ["state:active"]
    args.take(ALL_USERS, True)
    try:
        jobs = chosen(connection, "cancel", args, ("active",))
    except GpudError as error:
        if error.kind != NOTHING_RUNS:
            raise
        jobs = []
    if jobs is None:
        return False
    if connection.ask({"type": "drain"})["active"]:
        connection.ask({"type": "cancel", "jobs": ["state:active"], "all_users": True})
        wait_until_nothing_runs(connection)
    return True


VERBS = [
    Verb(
        "shutdown",
        "End gpud; running jobs go on.",
        run,
        options=(
            Option("cancel", "first cancel what runs, with its grace, and wait for it"),
            Option("yes", "do not ask, even if it is more than 10 jobs", short="y"),
        ),
        about="""\
Jobs that wait are kept, and systemd does not start gpud again by itself.
With --cancel nothing new starts any more (gpuctl drain), which holds after the
next start, too, until gpuctl undrain.""",
        examples=("gpuctl shutdown", "gpuctl shutdown --cancel"),
    ),
]
