"""The smallest HTTP/1.1 server that a scraper can use: `GET /metrics`, and HEAD.

Made by daemon/metering.py, which binds the socket. Rule 1: one request a connection, of MAX_HEAD
bytes and CLIENT_S seconds at most, answer included; past that it is cut off. Rule 2: no more than
MAX_CLIENTS at a time; one more is closed at once. Rule 3: whatever a client sends or leaves unread
is its own trouble; nothing of it is logged, and only a bug of ours leaves this file.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from gpud.metrics.text import CONTENT_TYPE

MAX_CLIENTS = 16
MAX_HEAD = 8 << 10
CLIENT_S = 10.0
PATH = "/metrics"

STATUSES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}


class MetricsServer:
    """`text` makes the page."""

    def __init__(self, text: Callable[[], str], *, client_s: float = CLIENT_S) -> None:
        self._text = text
        self._client_s = client_s
        self._clients: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Until cancelled; then all connections are ended. Takes over a socket that listens."""
        server = await asyncio.start_server(
            self._meet, sock=listener, limit=MAX_HEAD, start_serving=False
        )
        try:
            await server.start_serving()
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._clients) < MAX_CLIENTS:
                self._clients.add(task)
                async with asyncio.timeout(self._client_s):
                    await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            pass
        except asyncio.CancelledError:  # by `serve`; asyncio's streams take it for a bug
            pass
        finally:
            self._clients.discard(task)
            writer.transport.abort()  # nothing, where all has been sent and closed

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            answer = reply(431, f"cannot answer: the request is longer than {MAX_HEAD} bytes\n")
        else:
            answer = self._answer(head)
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        line = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(line) != 3 or not line[2].startswith("HTTP/1."):
            return reply(400, "cannot answer: that is not HTTP/1.1\n")
        method, target, _ = line
        with_body = method != "HEAD"
        if target.partition("?")[0] != PATH:
            return reply(404, f"there is nothing here: metrics are at {PATH}\n", body=with_body)
        if method not in ("GET", "HEAD"):
            return reply(405, "cannot answer: only GET and HEAD\n", "Allow: GET, HEAD\r\n")
        try:
            text = self._text()
        except Exception as error:
            # The loop's exception handler says what becomes of a bug.
            about = {"message": "bug in the metrics", "exception": error}
            asyncio.get_running_loop().call_exception_handler(about)
            return reply(500, "cannot answer: a bug in gpud\n", body=with_body)
        return reply(200, text, body=with_body, content_type=CONTENT_TYPE)


def reply(
    status: int,
    text: str,
    more: str = "",
    *,
    body: bool = True,
    content_type: str = "text/plain; charset=utf-8",
) -> bytes:
    content = text.encode()
    head = (
        f"HTTP/1.1 {status} {STATUSES[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\n"
        f"X-Content-Type-Options: nosniff\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + (content if body else b"")
