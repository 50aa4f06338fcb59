"""The daemon's connection: who may speak, lines in, lines out.

Owned by main.py; ending.py, start.py and orders.py say things through it. Decides who the daemon
is, and nothing about attempts. It never waits: what cannot be sent is kept, and while much is kept
nothing is read.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from math import inf

from gpud.runner import VERSION
from gpud.runner.attempt import Key
from gpud.runner.loop import Loop
from gpud.runner.machine import held_token, log
from gpud.runner.wire import Message, decode, line_of

LINE_LIMIT = 8 << 20
BACKLOG_LIMIT = 1 << 20
READ_BYTES = 1 << 16  # more, and each read would map memory and unmap it
SOON_S = 0.02
STRANGERS = 16  # connections that have not said hello; one more, and the oldest goes


class Refused(Exception):
    """A line that ends its connection."""


class Link:
    """One connection; only after a good hello is it the daemon's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.events = select.EPOLLIN
        self.input = bytearray()
        self.output = bytearray()


class Daemon:
    def __init__(self, loop: Loop, state_dir: str) -> None:
        self.loop = loop
        self.dir = state_dir
        self.path = f"{state_dir}/runner-{VERSION}.sock"
        self.link: Link | None = None
        self.strangers: list[Link] = []  # connections without a hello, the oldest first
        self.soon: dict[Key, tuple[float, bytes]] = {}  # when it is said at the latest, and what
        self.deaf = False  # descriptors have run out

    def listen(self, greet: Callable[[], Iterable[bytes]], obey: Callable[[Message], None]) -> None:
        """`greet`: what a daemon is told after its hello; `obey`: what it may say from then on."""
        self.greet, self.obey = greet, obey
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        dir_fd = os.open(self.dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        umask = os.umask(0o177)
        try:  # through /proc, since a socket's address has at most 107 bytes
            self.listener.bind(f"/proc/self/fd/{dir_fd}/{os.path.basename(self.path)}")
        finally:
            os.umask(umask)
            os.close(dir_fd)
        self.listener.listen(16)
        self.loop.add(self.listener.fileno(), self.on_connect)

    # ---- out

    def say(self, event: Message) -> None:
        self.say_line(line_of(event))

    def say_line(self, line: bytes) -> None:
        """Sent at the end of the turn; to nobody when there is no daemon: it will be told again."""
        if self.link:
            self.link.output += line

    def say_soon(self, key: Key, line: bytes) -> None:
        """With the next line about this attempt, or after SOON_S. A start is not worth a wake-up of
        the daemon: that of a short job is told together with its end."""
        self.soon[key] = time.monotonic() + SOON_S, line

    def say_of(self, key: Key, line: bytes) -> None:
        """About an attempt: after what is still to be said of it."""
        if key in self.soon:
            self.say_line(self.soon.pop(key)[1])
        self.say_line(line)

    def due_s(self) -> float:
        """When `flush` has something to say that waits now (monotonic)."""
        return next(iter(self.soon.values()))[0] if self.soon else inf

    def flush(self) -> None:
        while self.soon and self.due_s() <= time.monotonic():
            self.say_line(self.soon.pop(next(iter(self.soon)))[1])
        if self.link and self.link.output:
            self.send(self.link)

    def send(self, link: Link) -> None:
        try:
            sent = link.sock.send(link.output)
            del link.output[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close(link)
            return
        events = select.EPOLLIN if len(link.output) <= BACKLOG_LIMIT else 0
        events |= select.EPOLLOUT if link.output else 0
        if events != link.events:
            link.events = events
            self.loop.change(link.fd, events)

    # ---- in

    def on_connect(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError as e:
            log(f"cannot accept a connection: {e.strerror}")
            self.loop.change(self.listener.fileno(), 0)  # not asked again until one is closed
            self.deaf = True
            return
        sock.setblocking(False)
        link = Link(sock)
        self.strangers.append(link)
        if len(self.strangers) > STRANGERS:
            self.close(self.strangers[0])
        self.loop.add(link.fd, lambda: self.on_ready(link))
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            self.refuse(link, f"user {uid} is not the user of this runner")

    def on_ready(self, link: Link) -> None:
        """Readable, or writable again: then nothing is read until what we owe is written."""
        if link.output:
            self.send(link)
        if len(link.output) > BACKLOG_LIMIT:
            return
        try:
            data = link.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close(link)
            return
        link.input += data
        if b"\n" in data:
            *lines, rest = link.input.split(b"\n")
            link.input = rest
        else:
            lines = []
        try:
            for line in lines:
                self.on_line(link, line)
            if len(link.input) > LINE_LIMIT:
                raise Refused(f"a line is longer than {LINE_LIMIT} bytes")
        except Refused as e:
            self.refuse(link, str(e))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            self.refuse(link, f"the line was not understood: {type(e).__name__}: {e}")

    def on_line(self, link: Link, line: bytes | bytearray) -> None:
        m = decode(line)
        if link is self.link and m["op"] != "hello":
            self.obey(m)
        elif m["op"] == "hello":
            self.check_hello(m)
            if self.link and self.link is not link:
                self.close(self.link)
            self.link = link
            if link in self.strangers:
                self.strangers.remove(link)
            for told in self.greet():
                self.say_line(told)
        else:
            raise Refused("this is not the daemon's connection: hello comes first, the last counts")

    def check_hello(self, m: Message) -> None:
        if m["runner"] != VERSION:
            raise Refused(f"this runner speaks version {VERSION}")
        if not m["token"] or m["token"] != held_token(f"{self.dir}/lock"):
            raise Refused("the token is not that of the daemon that holds the lock")

    def refuse(self, link: Link, why: str) -> None:
        link.output += line_of({"ev": "refused", "why": why})
        self.send(link)
        self.close(link)

    def close(self, link: Link) -> None:
        if link in self.strangers:
            self.strangers.remove(link)
        if link.sock.fileno() >= 0:
            link.sock.detach()
            self.loop.drop(link.fd)
        if self.link is link:
            self.link = None
        if self.deaf:
            self.deaf = False
            self.loop.change(self.listener.fileno(), select.EPOLLIN)
