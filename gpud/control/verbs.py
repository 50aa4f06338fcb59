"""One request, one reply: which function answers what.

Called by control/session.py, for every request but submit, wait and follow. Reads go to
control/queries.py, changes to control/changes.py; nothing is decided here.
"""

from __future__ import annotations

import os
import socket
from typing import assert_never

from gpud import __version__
from gpud.control import belonging, changes, edits, pruning, queries
from gpud.control.views import gpu_views
from gpud.ports import Controlled
from gpud.protocol.replies import GpusReply, MetricsReply, Pong, Reloaded, Reply, SourcesReply
from gpud.protocol.requests import (
    Cancel,
    Checkpoint,
    Continue,
    Drain,
    Edit,
    Gpus,
    Group,
    Groups,
    Heal,
    Hold,
    Ls,
    Metrics,
    Move,
    Pause,
    Ping,
    Prune,
    Release,
    Reload,
    Retry,
    Show,
    Sources,
    SourceStart,
    SourceStop,
    Status,
    Swap,
    Undrain,
    Users,
    Why,
)

OneReply = (
    Ping
    | Status
    | Ls
    | Show
    | Why
    | Cancel
    | Retry
    | Hold
    | Release
    | Edit
    | Move
    | Swap
    | Pause
    | Continue
    | Checkpoint
    | Drain
    | Undrain
    | Gpus
    | Heal
    | Groups
    | Group
    | Users
    | Sources
    | SourceStop
    | SourceStart
    | Metrics
    | Reload
    | Prune
)


async def answer(daemon: Controlled, request: OneReply) -> Reply:
    """Raises GpudError when the answer is no. A change is committed when its answer returns."""
    match request:
        case Ping():
            return Pong(
                id=request.id,
                gpud=__version__,
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at_ms=daemon.started_at_ms,
            )
        case Status():
            return queries.status(daemon, request)
        case Ls():
            return await queries.ls(daemon, request)
        case Show():
            return queries.show(daemon, request)
        case Why():
            return await queries.why(daemon, request)
        case Gpus():
            gpus = gpu_views(daemon.state, daemon.now_ms())
            return GpusReply(id=request.id, gpus=gpus, note=daemon.gpu_note())
        case Heal():
            return await changes.heal(daemon, request)
        case Groups():
            return belonging.groups(daemon, request)
        case Group():
            return await belonging.rule_group(daemon, request)
        case Users():
            return belonging.users(daemon, request)
        case Sources():
            return SourcesReply(id=request.id, sources=tuple(daemon.sources()))
        case Metrics():
            return MetricsReply(id=request.id, text=daemon.metrics())
        case Cancel() | Retry() | Hold() | Release() | Pause() | Continue() | Checkpoint():
            return await changes.change(daemon, request)
        case Edit():
            return await edits.edit(daemon, request)
        case Move():
            return await edits.move(daemon, request)
        case Swap():
            return await edits.swap(daemon, request)
        case Drain():
            return await changes.drain(daemon, request)
        case Undrain():
            return await changes.undrain(daemon, request)
        case SourceStop() | SourceStart():
            return await changes.switch_source(daemon, request)
        case Reload():
            return Reloaded(id=request.id, changes=tuple(await daemon.reload()))
        case Prune():
            return await pruning.prune(daemon, request)
        case _:
            assert_never(request)
