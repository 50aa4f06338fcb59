"""Metrics of this daemon: counted from the first event on, told to gpuctl, offered to scrapers.

Owned by daemon/app.py. A port or path that cannot be had stops nothing: it is a problem that
people see, and is tried again every RETRY_S. While nobody asks, nothing of this runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from gpud.config.listen import is_path, read_listen
from gpud.control.address import Listener
from gpud.daemon.engine import Engine
from gpud.errors import GpudError, why_os
from gpud.metrics.counting import Counts
from gpud.metrics.http import MetricsServer
from gpud.metrics.reading import read
from gpud.ports import Measured

RETRY_S = 10.0
BACKLOG = 64


class Metering:
    """`problem`: why nobody can scrape, as a sentence, or ""."""

    def __init__(
        self,
        daemon: Measured,
        engine: Engine,
        *,
        on_bug: Callable[[BaseException], None],
        warn: Callable[..., None],
    ) -> None:
        self.problem = ""
        self._daemon = daemon
        self._on_bug = on_bug
        self._warn = warn
        self._counts = Counts(lambda: engine.state)
        self._server = MetricsServer(self.text)
        self._serving: asyncio.Task[None] | None = None
        engine.subscribe(self._counts.heard)
        engine.on_commit = self._counts.commit.observe

    def text(self) -> str:
        return read(self._daemon, self._counts)

    def offer(self, at: str | None) -> None:
        """To scrapers, there and nowhere else from now on; None: to nobody."""
        before, self._serving, self.problem = self._serving, None, ""
        if before is not None:
            before.cancel()
        if at is not None:
            self._serving = asyncio.get_running_loop().create_task(self._serve(at, before))
            self._serving.add_done_callback(self._ended)

    async def close(self) -> None:
        serving = self._serving
        self.offer(None)
        if serving is not None:
            await asyncio.wait({serving})

    async def _serve(self, at: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        while True:
            try:
                listener, remove = _bind(at)
                break
            except GpudError as error:
                if error.message != self.problem:
                    self._warn("metrics_not_offered", why=error.message, again_in_s=RETRY_S)
                self.problem = error.message
            await asyncio.sleep(RETRY_S)
        if self.problem:
            self._warn("metrics_offered", at=at)
        self.problem = ""
        if not is_path(at) and not read_listen(at)[0].is_loopback:
            self._warn("metrics_for_the_network", at=at, note="who reaches this port may read them")
        try:
            await self._server.serve(listener)
        finally:
            remove()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_bug(error)


def _bind(at: str) -> tuple[socket.socket, Callable[[], None]]:
    """A socket that listens, and what takes its file away. Raises GpudError."""
    if is_path(at):
        try:
            file = Listener(Path(at))
        except GpudError as error:
            raise GpudError(f"cannot offer metrics: {error.message}", kind=error.kind) from error
        return file.socket, file.remove
    address, port = read_listen(at)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise GpudError(f"cannot offer metrics on {at}: {why_os(error)}") from error
    return listener, lambda: None
