"""A blocking connection to the daemon: connect, greeting, requests and replies by id.

Used by gpuctl's verbs and by client/patience.py. Every expected trouble is a GpudError; what the
daemon refuses keeps its kind, everything about reaching it has kind `unreachable`. Tolerant:
replies and fields it does not know are passed over. `_socket` is what `socket` is made of, and a
third of its import time.
"""

from __future__ import annotations

import os
import sys
from _socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Socket

from gpud import __version__
from gpud.client import wire
from gpud.client.where import candidates, unreachable
from gpud.errors import GpudError, why_os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PROTOCOL_VERSION = 1  # the newest this client speaks
GREETING_WITHIN_S = 15.0  # a daemon that syncs a slow disk answers late, a hung one never
GREETING_LIMIT_BYTES = 1 << 16
REASON_WITHIN_S = 5.0  # a daemon that hangs up has said why before
ADDRESS_LIMIT_BYTES = 107  # sun_path of unix(7), less its NUL


class ConnectionLost(GpudError):
    """The daemon went away in the middle: whether it did what was asked is not known."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"cannot hear from gpud at {path}: {why}",
            kind="unreachable",
            hint="gpuctl ping says whether it is back",
        )


class Connection:
    """One connection, greeted. `path` is where; `greeting` what the daemon said of itself."""

    def __init__(self, sock: Socket, path: str) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._last_id = 0
        self.path = path
        self.greeting = self._greet()

    def close(self) -> None:
        self._sock.close()

    def peer_pid(self) -> int:
        """The daemon's process, as the kernel knows it."""
        credentials = self._sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: dict[str, Any], lines: Sequence[bytes] = ()) -> dict[str, Any]:
        """The reply to `request` (without its id), which may have job `lines` behind it."""
        number = self.send(request, lines)
        while True:
            reply = self.receive()
            if reply is not None and reply.get("id") == number:
                return reply

    def send(self, request: dict[str, Any], lines: Sequence[bytes] = ()) -> int:
        """The id that the request was given."""
        self._last_id += 1
        head = wire.encode({"type": request["type"], "id": self._last_id, **request})
        for line in (head, *lines):
            if len(line) > wire.MAX_LINE_BYTES + 1:  # and its newline
                raise GpudError(
                    f"cannot send the {request['type']}: {line[:40].decode(errors='replace')}… is "
                    f"{len(line)} bytes long, and gpud reads lines of {wire.MAX_LINE_BYTES}",
                    kind="usage",
                )
        try:
            self._sock.sendall(b"".join((head, *lines)))
        except OSError as error:
            while self.receive(REASON_WITHIN_S) is not None:
                pass  # the reason may be there already, behind what was asked for before
            raise ConnectionLost(self.path, why_os(error)) from error
        return self._last_id

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next reply, or None when none came in time. Raises what an error reply says."""
        line = self._line(timeout_s)
        if line is None:
            return None
        try:
            reply = wire.decode(line)
        except ValueError as error:
            raise GpudError(
                f"cannot understand what gpud at {self.path} says: {error}", kind="protocol"
            ) from error
        _raise_error(reply)
        return reply

    def _line(self, timeout_s: float | None, limit: int = 0) -> bytes | None:
        searched = 0
        self._sock.settimeout(timeout_s)
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if limit and searched > limit:
                raise ValueError("a line without end")
            try:
                data = self._sock.recv(1 << 18)
            except TimeoutError:
                return None
            except OSError as error:
                raise ConnectionLost(self.path, why_os(error)) from error
            if not data:
                raise ConnectionLost(self.path, "it closed the connection before it answered")
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _greet(self) -> dict[str, Any]:
        try:
            line = self._line(GREETING_WITHIN_S, GREETING_LIMIT_BYTES)
            if line is None:
                raise unreachable(self.path, TimeoutError(), [])
            greeting = wire.decode(line)
            _raise_error(greeting)  # too many clients, or not this user
            version, protocol = greeting["gpud"], int(greeting["protocol"])
        except (ValueError, TypeError, KeyError) as error:
            raise GpudError(
                f"cannot reach gpud at {self.path}: who answers there is not gpud",
                kind="unreachable",
            ) from error
        if protocol > PROTOCOL_VERSION:
            raise GpudError(
                f"cannot talk to gpud {version} at {self.path}: it speaks protocol {protocol}, "
                f"this gpuctl ({__version__}) speaks {PROTOCOL_VERSION}",
                kind="unreachable",
                hint=f"use the gpuctl that came with gpud {version}",
            )
        return greeting


def _raise_error(reply: dict[str, Any]) -> None:
    if reply.get("type") == "error":
        raise GpudError(
            str(reply.get("message", "gpud says no more than: error")),
            kind=str(reply.get("kind", "refused")),
            hint=str(reply.get("hint", "")),
        )


def ask(path: str | None, request: dict[str, Any]) -> dict[str, Any]:
    """One request on a connection of its own."""
    with connect(path) as connection:
        return connection.ask(request)


def connect(path: str | None = None) -> Connection:
    """Connect to `path`, or to the first place of `candidates()` where somebody listens."""
    places = [path] if path else candidates()
    failures: list[tuple[str, OSError]] = []
    for place in places:
        sock = Socket(AF_UNIX, SOCK_STREAM)
        try:
            _connect(sock, place)
        except OSError as error:
            sock.close()
            failures.append((place, error))
        else:
            try:
                return Connection(sock, place)
            except BaseException:
                sock.close()
                raise
    # The most telling failure: a socket that is there but not for us, before an empty place.
    place, worst = next(
        (f for f in failures if not isinstance(f[1], FileNotFoundError)), failures[0]
    )
    raise unreachable(place, worst, [p for p, _ in failures if p != place])


def _connect(sock: Socket, path: str) -> None:
    """A path too long for a socket address is reached through its directory's descriptor."""
    if len(os.fsencode(path)) <= ADDRESS_LIMIT_BYTES:
        sock.connect(path)
        return
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
