"""When an attempt that has ended is tried again, and after which pause. Pure arithmetic."""

from __future__ import annotations

from zlib import crc32

from gpud.core.model import Attempt, Job, JobId, Outcome, RetryPolicy

SPREAD = 0.25  # of a pause: jobs that failed together are not tried again together


def wants_retry(job: Job, attempt: Attempt, outcome: Outcome) -> bool:
    """Whether the job's own policy asks for another attempt after this end."""
    policy = job.retry
    if outcome is Outcome.CANCELLED or job.retries_left <= 0:
        return False
    if policy.oom and attempt.oom:
        return True
    return outcome in policy.on or (outcome is Outcome.FAILED and attempt.exit_code in policy.codes)


def pause_ms(policy: RetryPolicy, retry_no: int) -> int:
    """The pause before retry `retry_no` (1, 2, …): doubling from `backoff_s` to `backoff_max_s`."""
    doublings = min(retry_no - 1, 60)  # past that a float overflows, and every cap is reached
    return round(1000 * min(policy.backoff_s * 2.0**doublings, policy.backoff_max_s))


def spread(pause_ms: int, job: JobId, retry_no: int) -> int:
    """The pause, or up to a quarter less of it: always the same for the same retry of a job."""
    part = crc32(b"%d.%d" % (job, retry_no)) / 2**32
    return pause_ms - int(pause_ms * SPREAD * part)
