"""A server on a real socket and clients that speak the protocol by hand, for the tests here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from gpud.control.server import ControlServer
from gpud.paths import short_address

from .fake_daemon import FakeDaemon

PATIENCE_S = 30.0


class Served:
    """What a test gets: the daemon, the server, and a door."""

    def __init__(self, daemon: FakeDaemon, path: Path) -> None:
        self.daemon = daemon
        self.path = path
        self.warnings: list[tuple[str, dict[str, object]]] = []
        self.bugs: list[dict[str, Any]] = []
        self.server = ControlServer(daemon, path, warn=self._warn)

    def _warn(self, event: str, **about: object) -> None:
        self.warnings.append((event, about))

    def client(self) -> Client:
        return Client(self.path)


class Client:
    """`async with served.client() as client: await client.ask("ping")`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_id = 0

    async def __aenter__(self) -> Client:
        with short_address(self._path) as address:
            self.reader, self.writer = await asyncio.open_unix_connection(address, limit=1 << 28)
        self.greeting = await self.read()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send(self, type: str, **fields: object) -> int:
        self._last_id += 1
        self.raw(json.dumps({"type": type, "id": self._last_id, **fields}).encode() + b"\n")
        return self._last_id

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> Any:
        """The next line; None at the end."""
        try:
            line = await self.reader.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    async def read_reply(self, number: int) -> Any:
        """The next line that answers this request; those of others are passed over."""
        while (line := await self.read()) is not None:
            if line["id"] == number:
                return line
        return None

    async def ask(self, type: str, **fields: object) -> Any:
        number = self.send(type, **fields)
        return await self.read_reply(number)

    async def submit(self, command: str = "true", **fields: object) -> int:
        reply = await self.ask("submit", job={"command": command, "cwd": "/", **fields})
        assert reply["type"] == "submitted", reply
        return int(reply["first"])


@asynccontextmanager
async def serve(path: Path, daemon: FakeDaemon | None = None) -> AsyncIterator[Served]:
    served = Served(daemon or FakeDaemon(), path)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: served.bugs.append(context))
    await served.server.start()
    try:
        yield served
    finally:
        await served.server.close()
        served.daemon.store.close()
        for bug in served.bugs:  # what the server did comes before what the test made of it
            raise AssertionError(bug["message"]) from bug.get("exception")
    assert served.daemon.listeners == [], "somebody who is gone still listens"


def run(
    path: Path,
    test: Callable[[Served], Awaitable[None]],
    daemon: Callable[[], FakeDaemon] = FakeDaemon,
) -> None:
    """One test with a server that listens at `path`."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            async with serve(path, daemon()) as served:
                await test(served)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    while not condition():  # noqa: ASYNC110 - what changes it has no event
        await asyncio.sleep(0)
