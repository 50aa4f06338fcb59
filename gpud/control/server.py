"""The control server: the socket, who may connect, and the connections there are.

Made and closed by the daemon; control/session.py does the talking. The socket file is for its
owner only, and the kernel says who is at the other end (SO_PEERCRED): the daemon's own user and
root are let in, everybody else gets one sentence, before anything of theirs is read.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

from gpud import __version__
from gpud.control.address import BACKLOG, Listener
from gpud.control.link import Warn
from gpud.control.session import Session
from gpud.ports import Controlled
from gpud.protocol import PROTOCOL_VERSION
from gpud.protocol.framing import encode_line
from gpud.protocol.replies import Error, Greeting

FEATURES = ("bulk", "follow", "wait")
# Together well below 1024, the usual limit of open files: past it accept(2) and all else fails.
MAX_CLIENTS = 500
ACCEPTED_AT_ONCE = 64
_UCRED = struct.Struct("=iII")  # struct ucred of unix(7): pid, uid, gid


def _silent(event: str, **about: object) -> None:
    pass


class ControlServer:
    def __init__(self, daemon: Controlled, path: Path, *, warn: Warn = _silent) -> None:
        self._daemon = daemon
        self._path = path
        self._warn = warn
        self._sessions: set[Session] = set()
        self._listener: Listener | None = None
        self._server: asyncio.Server | None = None
        self._greeting = encode_line(
            Greeting(
                gpud=__version__,
                protocol=PROTOCOL_VERSION,
                features=FEATURES,
                host=socket.gethostname(),
            )
        )

    async def start(self) -> None:
        """Listen. Raises GpudError when that is not possible."""
        self._listener = Listener(self._path)
        # Not create_unix_server: from 3.13 on that removes the file by itself, whosever it is.
        self._server = await asyncio.get_running_loop().create_server(
            self._meet, sock=self._listener.socket, backlog=ACCEPTED_AT_ONCE
        )
        self._listener.socket.listen(BACKLOG)  # how many wait is another matter

    async def close(self) -> None:
        """Remove the socket and end all connections; answers that can be sent still are."""
        if self._listener is None or self._server is None:
            return
        self._listener.remove()
        self._server.close()
        for session in tuple(self._sessions):
            session.end()
        while self._sessions:
            await asyncio.gather(*(session.ended for session in tuple(self._sessions)))
        self._listener = self._server = None

    def _meet(self) -> Session:
        return Session(self._daemon, self._admit, self._sessions, self._warn)

    def _admit(self, transport: asyncio.Transport) -> dict[str, object] | None:
        """Greet the client, or turn it away. Gives back who it is, for warnings."""
        peer = transport.get_extra_info("socket")
        pid, uid, _gid = _UCRED.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        why = ""
        if uid not in (0, os.geteuid()):
            why = f"cannot talk to the gpud of user {os.geteuid()}: you are user {uid}"
        elif len(self._sessions) > MAX_CLIENTS:
            why = f"cannot talk to gpud: {MAX_CLIENTS} clients are connected"
        if why:
            transport.write(encode_line(Error(id=0, kind="refused", message=why)))
            transport.close()
            self._warn("client_refused", why=why, uid=uid, pid=pid)
            return None
        transport.write(self._greeting)
        return {"uid": uid, "pid": pid}
