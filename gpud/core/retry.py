"""When an attempt that has ended is tried again, and after which pause. Pure arithmetic."""

from __future__ import annotations

from gpud.core.model import Job, Outcome, RetryPolicy


def wants_retry(job: Job, outcome: Outcome, oom: str = "") -> bool:
    """Whether the job's own policy asks for another attempt after this outcome."""
    wanted = outcome in job.retry.on or (oom != "" and job.retry.oom)
    return wanted and outcome is not Outcome.CANCELLED and job.retries_left > 0


def pause_ms(policy: RetryPolicy, retry_no: int) -> int:
    """The pause before retry `retry_no` (1, 2, …): doubling from `backoff_s` to `backoff_max_s`."""
    doublings = min(retry_no - 1, 60)  # past that a float overflows, and every cap is reached
    return round(1000 * min(policy.backoff_s * 2.0**doublings, policy.backoff_max_s))
