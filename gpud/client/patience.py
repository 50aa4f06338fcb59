"""Requests that outlive a restart of the daemon: submit, wait and follow.

Used by gpuctl. Jobs do not notice a restart of gpud, so neither should the one who waits for
them. Only what is safe to ask twice is asked twice: a wait, a follow from a sequence number, a
submit with a key.
"""

from __future__ import annotations

import time

from gpud.client.connection import Connection, ConnectionLost, connect
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

RESTART_WITHIN_S = 30.0  # a restart with a large store takes seconds; a stop is for good
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


def reconnect(path: str | None) -> Connection:
    """Connect once more, as soon as the daemon is back. Raises the last failure."""
    deadline = time.monotonic() + RESTART_WITHIN_S
    pause = FIRST_PAUSE_S
    while True:
        try:
            return connect(path)
        except GpudError:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def submit(
    path: str | None, request: dict[str, Any], lines: Sequence[bytes] = ()
) -> dict[str, Any]:
    """Submit; `request` has a `key`, so that after a lost connection it is repeated, once."""
    with connect(path) as connection:
        try:
            return connection.ask(request, lines)
        except ConnectionLost as lost:
            first = lost
    unknown = GpudError(
        f"{first.message}; whether the submit was taken is not known",
        kind="unreachable",
        hint=f"to repeat it safely when gpud is back, add: --key {request['key']}",
    )
    try:
        connection = reconnect(connection.path)
    except GpudError as error:  # also one that turns clients away
        raise unknown from error
    try:
        with connection:
            return connection.ask(request, lines)
    except ConnectionLost as error:
        raise unknown from error


def wait(path: str | None, jobs: Sequence[str], *, over_restarts: bool) -> dict[str, Any]:
    """Ask until it is answered; `over_restarts` when `jobs` mean the same the second time."""
    connection = connect(path)
    while True:
        try:
            with connection:
                return connection.ask({"type": "wait", "jobs": jobs})
        except ConnectionLost:
            if not over_restarts:
                raise
        connection = reconnect(connection.path)


def follow(
    path: str | None,
    *,
    since: int | None = None,
    jobs: Sequence[int] = (),
    until_done: bool = False,
    pulse_s: float | None = None,
) -> Iterator[dict[str, Any] | None]:
    """The events after `since`, each once, over restarts; ends with the stream.

    Yields None when the stream is set up (again), and whenever nothing came for `pulse_s`.
    """
    connection = connect(path)
    while True:
        request: dict[str, Any] = {"type": "follow", "since": since}
        if jobs:
            request |= {"jobs": jobs, "until_done": until_done}
        try:
            with connection:
                since = connection.ask(request)["since"]
                yield None
                while (reply := connection.receive(pulse_s)) is None or reply["type"] != "end":
                    if reply is None:
                        yield None
                    elif reply["type"] == "event":
                        since = reply["event"]["seq"]
                        yield reply["event"]
                return
        except ConnectionLost:
            pass
        connection = reconnect(connection.path)
