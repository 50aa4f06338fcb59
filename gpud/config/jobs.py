"""From the defaults of jobs to the spec of one of which nothing else is known yet.

Called by the sources and by the control server, which lay over it what an entry or a client says.
"""

from __future__ import annotations

import os

from gpud.config.requests import retry_on
from gpud.config.schema import JobDefaults
from gpud.core.model import ONE_SLOT, JobSpec, Request, RetryPolicy


def spec_of(
    defaults: JobDefaults,
    *,
    uid: int,
    source: str = "",
    cwd: bytes = b"/",
    env: bytes = b"",
    request: Request = ONE_SLOT,
    priority: int = 0,
) -> JobSpec:
    """Not yet a job: it has no command."""
    return JobSpec(
        command=b"",
        shell=tuple(os.fsencode(word) for word in defaults.shell),
        setup=os.fsencode(defaults.setup),
        cwd=cwd,
        env=env,
        request=request,
        priority=priority,
        retry=retry_on(
            RetryPolicy(defaults.retries, defaults.backoff_s, defaults.backoff_max_s),
            defaults.retry_on,
        ),
        retry_args=os.fsencode(defaults.retry_args),
        time_limit_s=defaults.time_limit_s,
        grace_s=defaults.grace_s,
        linger_s=None if isinstance(defaults.linger_s, str) else defaults.linger_s,
        checkpoint=defaults.checkpoint,
        uid=uid,
        source=source,
    )
