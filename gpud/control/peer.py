"""Who is at the other end of a socket: the kernel's word, taken when the connection was made.

Called by control/server.py. Nothing that a client sends has a say in it.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct

from gpud.control.access import Caller

_UCRED = struct.Struct("=iII")  # struct ucred of unix(7): pid, uid, gid
SO_PEERGROUPS = 59  # Linux 4.13, include/uapi/asm-generic/socket.h; Python has no name for it
MOST_GROUPS = 256  # more do not fit into what getsockopt takes


def caller_at(peer: socket.socket) -> Caller:
    pid, uid, gid = _UCRED.unpack(
        peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return Caller(uid, frozenset((gid, *_groups(peer, uid, gid))), pid)


def _groups(peer: socket.socket, uid: int, gid: int) -> tuple[int, ...] | list[int]:
    """The supplementary groups of the process; where the kernel cannot say, those of its user."""
    try:
        found = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MOST_GROUPS)
        return struct.unpack(f"={len(found) // 4}I", found)
    except OSError:
        pass
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except (KeyError, OSError):
        return ()
