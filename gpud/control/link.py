"""The outgoing half of a connection: replies to bytes, and what happens when nobody reads them.

Owned by control/session.py; control/waiting.py and control/following.py send through it. Rule 1:
after `lost` or `drop` sending does nothing. Rule 2: who has more to send than one answer waits for
`drained` first, so that what is unsent stays near HIGH_WATER; a client that lets MAX_UNSENT pile
up all the same is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from msgspec import Struct

from gpud.errors import GpudError
from gpud.protocol.framing import encode_line
from gpud.protocol.replies import Error

HIGH_WATER = 256 << 10
MAX_UNSENT = 8 << 20

Warn = Callable[..., None]  # warn("event_name", key=value, ...)


class Link:
    def __init__(self, transport: asyncio.Transport, warn: Warn, **about: object) -> None:
        """`about` goes with every warning: who the client is."""
        self.gone = False
        self.writable = True
        self._transport = transport
        self._warn = warn
        self._about = about
        self._full_since = 0.0
        self._room = asyncio.Event()
        self._room.set()
        transport.set_write_buffer_limits(high=HIGH_WATER)

    def send(self, *replies: Struct) -> None:
        if self.gone or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self.drop("it does not read its answers")
            return
        self._transport.write(b"".join(map(encode_line, replies)))

    def refuse(self, request: int, error: GpudError) -> None:
        self.send(Error(id=request, kind=error.kind, message=error.message, hint=error.hint))

    async def drained(self) -> None:
        """Return when there is room again, or when the client is gone."""
        await self._room.wait()

    def stalled_s(self) -> float:
        """For how long there has been no room: the client has read next to nothing since."""
        return 0.0 if self.writable else monotonic() - self._full_since

    def drop(self, why: str) -> None:
        """End the connection at once; what is unsent is lost."""
        if not self.gone:
            self._warn("client_dropped", why=why, **self._about)
            self._transport.abort()
            self.lost()

    def pause(self) -> None:
        self.writable = False
        self._full_since = monotonic()
        self._room.clear()

    def resume(self) -> None:
        self.writable = True
        self._room.set()

    def lost(self) -> None:
        self.gone = True
        self._room.set()
