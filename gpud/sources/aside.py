"""Blocking calls beside the loop, in threads that may be abandoned.

Owns one trick: each call gets a daemon thread of its own, so that a file system that does not
answer (a cut-off mount blocks for minutes, beyond any signal) holds up neither the loop, nor other
sources, nor the end of the process, as a thread of asyncio's pool would. Called by the readers,
which have at most one call under way. A cancelled call's thread runs on, and what it returns is
dropped: it must share nothing with what comes after it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(call: Callable[[], T]) -> asyncio.Future[T]:
    """Start `call` in a thread of its own. Called on the loop; await or cancel the result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def succeed(result: T) -> None:
        if not future.done():
            future.set_result(result)

    def fail(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def work() -> None:
        try:
            try:
                result = call()
            except BaseException as error:  # whatever it is, it belongs to the caller
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, result)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    threading.Thread(target=work, name="gpud-aside", daemon=True).start()
    return future


async def patiently(call: Callable[[], T], answer_s: float, slow: Callable[[], None]) -> T:
    """`call` aside; `slow` is called once when there is no answer after `answer_s`."""
    future = aside(call)
    try:
        done, _ = await asyncio.wait({future}, timeout=answer_s)
        if not done:
            slow()
        return await future
    except asyncio.CancelledError:
        future.cancel()
        raise
