"""What of the past is kept, from the configuration in the core's units.

Called by daemon/serve.py and daemon/reload.py.
"""

from __future__ import annotations

from gpud.config.schema import Retention
from gpud.core.retention import Limits

MIB = 1 << 20


def limits_of(config: Retention) -> Limits:
    return Limits(
        jobs_ms=round(config.jobs_s * 1000),
        jobs=config.jobs,
        logs_ms=round(config.logs_s * 1000),
        logs_bytes=config.logs_size * MIB,
    )
