"""Parts of sentences about jobs and GPUs, for core/explain.py and core/explain_room.py. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gpud.core.model import CPU_LANE, JobId
from gpud.core.pool import Lease
from gpud.core.state import State

UUIDS = ("GPU-", "MIG-")  # how they begin


def where(state: State, lease: Lease) -> str:
    labels = [state.pool.label(part.device) for part in lease]
    return "the CPU" if labels == [CPU_LANE] else gpus_in_words(labels)


def selector(state: State, job: JobId) -> str:
    """What means this job alone on a command line: the id of an array's first one means all."""
    array = state.numbering.array_of(job)
    return f"{job}-{job}" if array is not None and array[0] == job < array[1] else str(job)


def gpus_in_words(labels: Sequence[str]) -> str:
    """ "GPU 0", "GPUs 0, 1 and 3"; those that are called by their UUIDs as they are."""
    if any(label.startswith(UUIDS) for label in labels):
        return listed(labels)
    return f"{'GPU' if len(labels) == 1 else 'GPUs'} {listed(labels)}"


def jobs_in_words(jobs: Sequence[JobId]) -> str:
    return f"{'job' if len(jobs) == 1 else 'jobs'} {listed([str(job) for job in sorted(jobs)])}"


def listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def and_more(jobs: list[JobId]) -> str:
    return f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""


def seconds(ms: int) -> str:
    seconds = max(0, -(-ms // 1000))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
