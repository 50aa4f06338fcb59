"""One connection to one runner: bytes both ways, hello first.

Owned by executors/runner.py. Decides nothing: messages go up as they come.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from gpud.executors.wire import AnyMessage, decode, encode
from gpud.paths import short_address


class RunnerLink(asyncio.Protocol):
    """Calls `on_messages` with what a read brought, and `on_lost` once, when it is over."""

    def __init__(
        self,
        version: int,
        on_messages: Callable[[RunnerLink, list[AnyMessage]], None],
        on_lost: Callable[[RunnerLink], None],
    ) -> None:
        self.version = version
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self.peer_pid = 0  # the runner's
        self._unsent: list[bytes] = []

    def send(self, message: object) -> None:
        """Goes out with the next `flush`: one write, one wake-up of the runner.

        Nothing is sent once the connection is lost: the next hello tells what is missing.
        """
        if self._transport is not None:
            self._unsent.append(encode(message))

    def flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None:
            self._transport.write(b"\n".join((*unsent, b"")))

    def close(self) -> None:
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def abandon(self) -> None:
        """Close, and say nothing of it: another connection takes over."""
        self._on_lost = lambda link: None
        self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        client = transport.get_extra_info("socket")
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.peer_pid = int.from_bytes(credentials[:4], sys.byteorder)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [decode(line) for line in lines]
        except msgspec.DecodeError:
            self.close()  # not a runner: connect again, and ask afresh
            return
        if messages:
            self._on_messages(self, messages)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost(self)


async def connect(
    state_dir: Path,
    version: int,
    token: str,
    on_messages: Callable[[RunnerLink, list[AnyMessage]], None],
    on_lost: Callable[[RunnerLink], None],
) -> RunnerLink:
    """Connect and say hello. Raises OSError when nobody listens."""
    loop = asyncio.get_running_loop()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setblocking(False)
    try:
        with short_address(state_dir / f"runner-{version}.sock") as address:
            client.connect(address)  # a Unix socket connects at once or not at all
        _, link = await loop.create_connection(
            lambda: RunnerLink(version, on_messages, on_lost), sock=client
        )
    except BaseException:
        client.close()
        raise
    link.send({"op": "hello", "runner": version, "token": token})
    link.flush()
    return link
