"""`prune`: what a person's request means as limits of what is kept.

Called by control/verbs.py.
"""

from __future__ import annotations

from msgspec import structs

from gpud.config.limits import LONGEST_S
from gpud.core.retention import YOUNGEST_MS, Limits
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.replies import PrunedReply
from gpud.protocol.requests import Prune


async def prune(daemon: Controlled, request: Prune) -> PrunedReply:
    """Raises GpudError (usage, storage)."""
    limits = asked(request, daemon.limits)
    pruned = await daemon.prune(limits, really=not request.dry_run)
    return PrunedReply(id=request.id, **structs.asdict(pruned))


def asked(request: Prune, configured: Limits) -> Limits:
    """What is older than that, or than configured; of logs alone, or of jobs too."""
    older_s = request.older_s
    if older_s is None:
        if request.logs_only:
            return structs.replace(configured, jobs=0, jobs_ms=0)
        return configured
    if not YOUNGEST_MS / 1000 <= older_s <= LONGEST_S:
        raise GpudError(
            "cannot prune what ended less than an hour ago"
            if older_s < YOUNGEST_MS / 1000
            else "cannot prune: nothing is that old",
            kind="usage",
        )
    older_ms = round(older_s * 1000)
    return Limits(logs_ms=older_ms) if request.logs_only else Limits(jobs_ms=older_ms)
