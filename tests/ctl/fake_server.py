"""A scripted daemon: a real Unix socket, the real protocol, answers as the test says.

Requests are decoded with gpud.protocol.framing, as strictly as the daemon does it, so a client
that drifts from the protocol fails here. `answers` maps a request type to what it is answered: a
reply, bytes (sent as they are), a GpudError, `DROP` (the connection ends), a pause in seconds, a
list or a generator of these, or a function of the request (and for a submit with `count`, of its
job lines) that gives one of these.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gpud.errors import GpudError
from gpud.protocol import replies, requests
from gpud.protocol.framing import LineSplitter, decode_job, decode_request, encode_line

DROP = object()
GREETING = replies.Greeting(gpud="0.1.0", protocol=1, features=("follow",), host="node7")


class FakeServer:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.greeting: bytes = encode_line(GREETING)
        self.answers: dict[type, Any] = {}
        self.requests: list[Any] = []
        self.jobs: list[requests.JobFields] = []  # the lines of bulk submits
        self.unreadable: list[bytes] = []  # requests that the daemon would not have understood
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(10)
        self.path.unlink(missing_ok=True)
        assert not self.unreadable, self.unreadable

    def asked(self, kind: type) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.sendall(self.greeting)
                self._talk(connection)
            except OSError:
                pass  # the client has gone

    def _talk(self, connection: socket.socket) -> None:
        splitter = LineSplitter()
        waiting: list[bytes] = []

        def next_line() -> bytes | None:
            while not waiting:
                data = connection.recv(1 << 16)
                if not data:
                    return None
                waiting.extend(splitter.feed(data))
                assert splitter.broken is None
            return waiting.pop(0)

        while (line := next_line()) is not None:
            try:
                request = decode_request(line)
                self.requests.append(request)
                extra: tuple[Any, ...] = ()
                if isinstance(request, requests.Submit) and request.count:
                    lines = [next_line() or b"" for _ in range(request.count)]
                    self.jobs = [decode_job(one) for one in lines]
                    extra = (self.jobs,)
            except GpudError as error:
                self.unreadable.append(line)
                connection.sendall(_error(0, error))
                return
            answer = self.answers[type(request)]
            if isinstance(answer, Callable):
                answer = answer(request, *extra)
            for one in answer if isinstance(answer, (list, Iterator)) else [answer]:
                if one is DROP:
                    return
                if isinstance(one, float):
                    time.sleep(one)
                    continue
                connection.sendall(_to_bytes(one, request.id))


def _to_bytes(answer: Any, number: int) -> bytes:
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, GpudError):
        return _error(number, answer)
    return encode_line(msgspec.structs.replace(answer, id=number))


def _error(number: int, error: GpudError) -> bytes:
    return encode_line(
        replies.Error(id=number, kind=error.kind, message=error.message, hint=error.hint)
    )
