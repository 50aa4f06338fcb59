"""Which GPUs this machine has, asked once, by who has no event loop.

Called by `gpud doctor`. Blocks until the driver has answered or a limit has passed.
"""

from __future__ import annotations

import asyncio

from gpud.devices.watcher import HINT, NvmlWatcher
from gpud.errors import GpudError
from gpud.ports import GpusFound

SURVEY_LIMIT_S = 60.0  # eight GPUs that wake up one after the other


def survey(limit_s: float = SURVEY_LIMIT_S) -> GpusFound:
    """What the driver says. Raises GpudError as `NvmlWatcher.find`, and when the limit has passed.
    Not for a thread in which an event loop runs."""

    async def ask() -> GpusFound:
        watcher = NvmlWatcher()
        try:
            async with asyncio.timeout(limit_s):
                return await watcher.find()
        except TimeoutError:
            why = f"it does not answer within {limit_s:g} s"
            message = f"cannot ask the NVIDIA driver for GPUs: {why}"
            raise GpudError(message, kind="unreachable", hint=HINT) from None
        finally:
            await watcher.close()

    return asyncio.run(ask())
