"""The control server: the socket, who may connect, and the connections there are.

Made and closed by the daemon; control/session.py does the talking. The kernel says who is at the
other end (SO_PEERCRED). Of one person's daemon the socket file is for its owner only, and the
daemon's own user and root are let in; in system mode it is for root and a group, whose members are.
Everybody else gets one sentence, before anything of theirs is read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from gpud import __version__
from gpud.control.access import Policy, is_administrator, may_connect
from gpud.control.address import BACKLOG, Listener
from gpud.control.guard import Guard
from gpud.control.link import Warn
from gpud.control.meter import Meter
from gpud.control.peer import caller_at
from gpud.control.session import Session
from gpud.ports import Controlled
from gpud.protocol import PROTOCOL_VERSION
from gpud.protocol.framing import encode_line
from gpud.protocol.replies import Error, Greeting

FEATURES = ("bulk", "follow", "wait")
# Together well below 1024, the usual limit of open files: past it accept(2) and all else fails.
MAX_CLIENTS = 500
ACCEPTED_AT_ONCE = 64
PRIVATE = Policy()


def _silent(event: str, **about: object) -> None:
    pass


class ControlServer:
    def __init__(
        self,
        daemon: Controlled,
        path: Path,
        *,
        policy: Policy = PRIVATE,
        meter: Meter | None = None,
        warn: Warn = _silent,
    ) -> None:
        """`meter`: of all servers of this daemon together."""
        self._daemon = daemon
        self._path = path
        self._policy = policy
        self._meter = meter or Meter(policy)
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
        self._listener = Listener(self._path, self._policy)
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
        return Session(self._admit, self._sessions, self._warn)

    def _admit(self, transport: asyncio.Transport) -> Guard | None:
        """Greet the client, or turn it away. Gives back what looks after it."""
        caller = caller_at(transport.get_extra_info("socket"))
        uid, pid, policy = caller.uid, caller.pid, self._policy
        why = ""
        if not may_connect(policy, caller, os.geteuid()):
            why = f"cannot talk to the gpud of user {os.geteuid()}: you are user {uid}"
            if policy.system:
                why = "cannot talk to gpud: you are not in the group that may use it"
        elif len(self._sessions) > MAX_CLIENTS:
            why = f"cannot talk to gpud: {MAX_CLIENTS} clients are connected"
        elif policy.max_connections and not is_administrator(policy, caller):
            mine = sum(s.guard is not None and s.guard.caller.uid == uid for s in self._sessions)
            if mine >= policy.max_connections:
                why = f"cannot talk to gpud: you have {mine} connections already"
        if why:
            transport.write(encode_line(Error(id=0, kind="refused", message=why)))
            transport.close()
            self._warn("client_refused", why=why, uid=uid, pid=pid)
            return None
        transport.write(self._greeting)
        return Guard(self._daemon, policy, caller, self._meter, self._warn)
