"""What each figure must reach, and who is best at it today. The only place where limits stand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    what: str
    unit: str
    limit: float | None  # None: measured for the record
    best_peer: str
    at_least: bool = False  # else: at most

    def met_by(self, value: float) -> bool:
        if self.limit is None:
            return True
        return value >= self.limit if self.at_least else value <= self.limit

    def shown(self) -> str:
        if self.limit is None:
            return "-"
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


def _least(what: str, limit: float, best_peer: str) -> Limit:
    return Limit(what, "of C", limit, best_peer, at_least=True)


LIMITS: dict[str, Limit] = {
    "daemon-throughput": _least(
        "daemon, 4,000 jobs in one submit, durable, 4 slots",
        0.55,
        "tsp 0.42, HyperQueue 0.39, both not durable",
    ),
    "run-throughput": _least(
        "gpud run, 4,000 jobs from stdin, start-up included",
        0.6,
        "simple_gpu_scheduler 0.63, keeps nothing",
    ),
    "run-against-sgs": Limit(
        "gpud run, times as fast as simple_gpu_scheduler",
        "x",
        1.0,
        "the same run",
        at_least=True,
    ),
    "start-to-start": Limit(
        "start to start, one slot, queue full",
        "x C",
        1.7,
        "simple_gpu_scheduler 1.25, tsp 1.38, HyperQueue 1.58, gflow 1,640",
    ),
    "first-instruction": Limit(
        "submit to first instruction, daemon idle, connection open", "ms", 4.0, "tsp 2.3"
    ),
    "gpuctl-submit": Limit(
        "one gpuctl submit, start to exit",
        "x python -c pass",
        2.5,
        "Slurm 3 ms (not Python), gflow 10 ms, gq 70 ms",
    ),
    "bulk-10k": Limit("submit of 10,000, sent to acknowledged", "s", 0.15, "HyperQueue 0.09"),
    "bulk-100k": Limit("submit of 100,000, sent to acknowledged", "s", 1.5, "HyperQueue 1.55"),
    "array-submit": Limit("an array of 100,000, submitted", "s", 2.0, ""),
    "array-ls": Limit("the same, listed", "s", 2.0, ""),
    "array-cancel": Limit("the same, cancelled", "s", 2.0, ""),
    "array-rss": Limit("memory of the daemon with it, against without", "x", 1.2, ""),
    "restart-100k": Limit(
        "restart with 100,000 queued, to the first answer", "s", 0.5, "Slurm 1.0, gflow 1.9"
    ),
    "restart-rss": Limit(
        "memory of the daemon then", "MB", None, "HyperQueue 159, gflow 114 with 100,000"
    ),
    "ls-flat": Limit(
        "gpuctl ls with 10,000 queued, against with 100", "x", 1.3, "Slurm 3.4, gflow 7.1"
    ),
    "idle-source": Limit(
        "wake-ups of the idle daemon with a queue file", "/s", 1.0, "HyperQueue 3, gflow 22"
    ),
    "idle-bare": Limit("wake-ups of the idle daemon without a source", "/s", 0.0, "tsp 0"),
    "idle-runner": Limit("wake-ups of the idle runner", "/s", 0.0, "Slurm's slurmd 0"),
    "idle-rss": Limit("memory of the daemon with 10,000 queued", "MB", 45.0, "HyperQueue 42"),
    "idle-runner-rss": Limit("memory of the runner", "MB", None, "Slurm's slurmd 5"),
    "gpu-polling": Limit("looking at 8 GPUs, nothing running", "% of a core", 0.2, ""),
    "growth": Limit(
        "cost of a job with 100,000 others queued, against 1,000", "x", 1.2, "pueue #573 grows"
    ),
    "dispatch-8": Limit("a turn with 10,000 queued, 8 GPUs", "ms", None, ""),
    "dispatch-64": Limit("a turn with 10,000 queued, 64 GPUs", "ms", 1.0, ""),
    "dispatch-1024": Limit("a turn with 10,000 queued, 1,024 GPUs", "ms", None, ""),
    "dispatch-growth-64": Limit("the same on 64 GPUs, against 8", "x n log n", 1.0, ""),
    "dispatch-growth-1024": Limit("the same on 1,024 GPUs, against 64", "x n log n", 1.0, ""),
    "dispatch-queued": Limit("a turn with 100,000 queued, against 10,000", "x", 1.5, ""),
    "dispatch-memory": Limit("a turn with 10,000 different --vram queued", "ms", 1.0, ""),
    "dispatch-auto": Limit("a turn with 10,000 different --vram auto queued", "ms", 1.0, ""),
    "dispatch-wide": Limit("choosing 8 to 32 near GPUs among 64", "ms", 1.0, ""),
    "forecast": Limit("a forecast of the last of 10,000 queued, 64 GPUs", "ms", 1000.0, ""),
    "forecast-growth": Limit("the same of 100,000", "x", 2.0, ""),
    "forecast-piece": Limit("what it takes in one go, at most", "ms", 10.0, ""),
    "forecast-piece-100k": Limit("the same of 100,000", "ms", 50.0, ""),
    "simulate-8": Limit("decisions over a trace of 100,000 jobs, 8 GPUs", "/s", None, ""),
    "simulate-64": Limit("decisions over a trace of 100,000 jobs, 64 GPUs", "/s", None, ""),
    "simulate-1024": Limit("decisions over a trace of 100,000 jobs, 1,024 GPUs", "/s", None, ""),
    "simulate-growth": Limit(
        "a trace of 100,000 jobs, against 10,000, 64 GPUs", "x n log n", 1.0, ""
    ),
    "load-utilisation": Limit(
        "8 GPUs in use at load 0.9, against FIFO without backfill", "x", 1.0, "", at_least=True
    ),
}
