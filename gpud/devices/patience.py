"""How long a GPU helper is waited for, and what it means when it has nothing more to say.

Used by devices/driver.py.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from gpud.devices.helper import DEATH_WAIT_S, Helper
from gpud.devices.wire import Answer, Cannot

LOOK_TIMEOUT_S = 5.0  # at one GPU; a driver that is well needs milliseconds
WAKE_TIMEOUT_S = 20.0  # at one GPU, asked for the first time: without persistence mode it wakes up
INIT_TIMEOUT_S = 30.0  # before the first GPU: the driver may have to be loaded
FIRST_PAUSE_S = 1.0  # after trouble with the whole driver
SLICES = 5  # of a limit: when this process, or the machine, was frozen, only one of them is over


class Limits(NamedTuple):
    look_s: float = LOOK_TIMEOUT_S
    wake_s: float = WAKE_TIMEOUT_S
    init_s: float = INIT_TIMEOUT_S
    first_pause_s: float = FIRST_PAUSE_S


USUAL = Limits()


class Trouble(Exception):
    """The driver as a whole cannot be asked. `why` is a clause; `missing`: there is none."""

    def __init__(self, why: str, *, missing: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.missing = missing


class Lost(Exception):
    """A helper is of no more use. `at`: the index of the GPU it was busy with, or None."""

    def __init__(self, at: int | None, why: str, *, crashed: bool = False) -> None:
        super().__init__(why)
        self.at = at
        self.why = why
        self.crashed = crashed


async def receive(helper: Helper, at: int | None, limit_s: float) -> Answer:
    """The next line of a helper that is busy with the GPU `at`. Raises Lost, and Trouble when the
    driver refuses; then, and when it is cancelled, the helper is good for nothing any more."""
    for _ in range(SLICES):
        try:
            async with asyncio.timeout(limit_s / SLICES):
                answer = await helper.receive()
            break
        except TimeoutError:
            continue
    else:
        for_it = "" if at is None else " for it"
        raise Lost(at, f"the driver did not answer{for_it} within {limit_s:g} s")
    if answer is None:
        await helper.dead(DEATH_WAIT_S)
        raise Lost(at, helper.how_it_ended(), crashed=True)
    if isinstance(answer, Cannot):
        raise Trouble(answer.why, missing=answer.missing)
    return answer
