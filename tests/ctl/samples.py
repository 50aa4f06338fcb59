"""Replies as the daemon gives them, with everything that a screen must cope with."""

from __future__ import annotations

from typing import Any

from gpud.protocol import replies
from gpud.protocol.gpus import GpuProcessView, GpuSightView, GpuView
from gpud.protocol.text import Raw

NOW_MS = 1_795_248_000_000  # 2026-11-21 08:00:00 UTC


def job(number: int, **changes: Any) -> replies.JobView:
    """A job that has waited for five minutes."""
    fields: dict[str, Any] = {
        "id": number, "name": "", "state": "queued", "phase": "", "outcome": "", "reason": "",
        "why": "", "exit_code": None, "signal": None, "attempt": 0, "retries_left": 0,
        "priority": 0, "gpus": None, "lease": (), "command": f"python train.py --seed {number}",
        "source": "", "where": "", "submitted_at_ms": NOW_MS - 300_000, "started_at_ms": 0,
        "ended_at_ms": 0, "not_before_ms": 0,
    }  # fmt: skip
    return replies.JobView(**fields | changes)


def running(number: int, **changes: Any) -> replies.JobView:
    return job(
        number,
        **{"state": "active", "phase": "running", "attempt": 1, "lease": ("0",),
           "started_at_ms": NOW_MS - 192_000} | changes,
    )  # fmt: skip


def done(number: int, outcome: str = "succeeded", **changes: Any) -> replies.JobView:
    code = {"succeeded": 0, "failed": 1}.get(outcome)
    return job(
        number,
        **{"state": "done", "outcome": outcome, "attempt": 1, "lease": ("1",), "exit_code": code,
           "started_at_ms": NOW_MS - 4_000_000, "ended_at_ms": NOW_MS - 300_000} | changes,
    )  # fmt: skip


JOBS = (
    done(36, "succeeded", name="base"),
    done(37, "failed", exit_code=2, why="", attempt=3, source="night", where="gpu.queue:7"),
    done(38, "killed", signal=9, exit_code=None, command="./simulate\x1b[31m\n--until 'dark'"),
    done(39, "timed-out", signal=15, priority=5, name="sweep-lr-0.001-and-more"),
    done(40, "not-started", started_at_ms=0, lease=(), why="the directory /x does not exist"),
    done(41, "lost", command=Raw("L2Jpbi9lY2hvIP8=")),
    running(42, name="sweep-lr-0.01", lease=("0", "1"), gpus=2),
    running(43, lease=("2:500",), command="python eval.py --checkpoint " + "x" * 120),
    running(44, phase="stopping", lease=("cpu:62",), gpus=0),
    job(45, reason="waits for a free slot: all 4 are taken", priority=5),
    job(46, state="held", reason="held: gpuctl release 46", command="echo 日本語 ünï"),
    running(
        47, phase="paused", lease=("3",), checkpoint="SIGUSR1", paused_at_ms=NOW_MS - 60_000,
        reason="paused on GPU 3 for 60 s; its GPU memory stays held: gpuctl continue 47",
    ),
)  # fmt: skip

GPUS = (
    replies.GpuView("0", ("0",), 1, 0, (42,), ""),
    replies.GpuView("1", ("1",), 1, 0, (42,), ""),
    replies.GpuView("2", ("2",), 2, 500, (43,), ""),
    replies.GpuView("3", ("3",), 1, 0, (47,), ""),
    replies.GpuView("4", ("4",), 1, 1000, (), "process 4711 of alice uses it"),
    replies.GpuView("cpu", (), 16, 938, (44,), ""),
)


def seen(number: int, used_mib: int, *processes: GpuProcessView) -> GpuSightView:
    return GpuSightView(
        f"GPU-{number:08}-aaaa", NOW_MS - 1000, 81920, used_mib, 81920 - used_mib, 50, 61, 402.5,
        processes,
    )  # fmt: skip


def gpu(number: int, free_milli: int, jobs: tuple[int, ...] = (), **more: Any) -> GpuView:
    """One that the driver tells of."""
    fields = {
        "model": "NVIDIA A100",
        "slots": 1,
        "problem": "",
        "gpus": (seen(number, 512),),
        "promised_mib": 0,
    }
    fields |= {"key": f"GPU-{number:08}-aaaa", "ids": (str(number),)}
    return GpuView(free_milli=free_milli, jobs=jobs, **(fields | more))


OFF_THE_BUS = "Xid 79: it has fallen off the bus"
ALICE = GpuProcessView(4711, "python", "alice", 12288, 0)
# Each state there is, and each kind of name.
TROUBLED = (
    gpu(0, 1000),
    gpu(1, 500, (42,), slots=2, promised_mib=40960),
    gpu(2, 0, (43,), promised_mib=81920),
    gpu(3, 1000, problem="used by pid 4711 (python of alice, 12 GiB)", guest=True,
        gpus=(seen(3, 12288, ALICE),)),
    gpu(4, 1000, problem=OFF_THE_BUS, quarantined=True),
    gpu(5, 0, (44,), problem=OFF_THE_BUS, quarantined=True),
    gpu(6, 1000, problem="the driver does not answer for it"),
    GpuView("MIG-8a1b2c3d-aaaa", ("MIG-8a1b2c3d-aaaa",), 1, 1000, (), OFF_THE_BUS,
            quarantined=True, gpus=(seen(7, 512, ALICE),)),
    GpuView("GPU-00000008-aaaa,GPU-00000009-aaaa", (), 0, 0, (45,), "not in the pool now"),
    gpu(10, 1000, kept_for=46),
    gpu(11, 500, (47,), slots=2, promised_mib=40960, kept_for=46),
    gpu(12, 0, (48,), promised_mib=81920, kept_for=46),
    gpu(13, 349, (49, 50), promised_mib=53043),
    gpu(14, 0, (51,), ids=("14", "15"), gpus=(seen(14, 512), seen(15, 512)), promised_mib=81920),
)  # fmt: skip

SOURCES = (
    replies.SourceView(
        "night", "queue-file", "/srv/lab/gpu.queue", False, "", "", NOW_MS - 1500, 40, 12
    ),
    replies.SourceView(
        "lab", "queue-file", "/mnt/lab/gpu.queue", False, "cannot read it: stale file handle",
        "the file was replaced: 3 of 9 lines were new", NOW_MS - 9_000_000, 9, 0,
    ),
    replies.SourceView("old", "queue-file", "/srv/lab/old.queue", True, "", "", 0, 0, 0),
)  # fmt: skip

STATUS = replies.StatusReply(
    id=0, gpud="0.1.0", host="node7", pid=4242, started_at_ms=NOW_MS - 8_000_000, now_ms=NOW_MS,
    state_dir="/var/lib/gpud", socket="/run/gpud/gpud.sock", draining=False, queued=31, held=1,
    active=4, done={"succeeded": 120, "failed": 1, "killed": 1}, gpus=GPUS, sources=SOURCES,
    running=tuple(j for j in JOBS if j.state == "active"),
    recent=tuple(j for j in JOBS if j.state == "done"),
    problems=("cannot read /mnt/lab/gpu.queue: stale file handle",),
)  # fmt: skip

EMPTY = replies.StatusReply(
    id=0, gpud="0.1.0", host="node7", pid=4242, started_at_ms=NOW_MS, now_ms=NOW_MS,
    state_dir="/s", socket="/s/gpud.sock", draining=False, queued=0, held=0, active=0, done={},
    gpus=(replies.GpuView("3", ("3",), 1, 1000, (), ""),), sources=(), running=(), recent=(),
    problems=(),
)  # fmt: skip


def event(seq: int, number: int, kind: str, attempt: int = 0, **detail: Any) -> replies.EventView:
    return replies.EventView(seq, NOW_MS - 400_000 + 1000 * seq, number, attempt, kind, detail)


def attempt(number: int, no: int, **changes: Any) -> replies.AttemptView:
    fields: dict[str, Any] = {
        "attempt": no, "phase": "running", "outcome": "", "exit_code": None, "signal": None,
        "why": "", "lease": ("0",), "pid": 4711, "dispatched_at_ms": NOW_MS - 193_000,
        "started_at_ms": NOW_MS - 192_000, "ended_at_ms": 0, "user_s": None, "system_s": None,
        "max_rss_kib": None, "log": f"/s/logs/0/{number}.{no}.log",
    }  # fmt: skip
    return replies.AttemptView(**fields | changes)


def detail(
    view: replies.JobView,
    attempts: tuple[replies.AttemptView, ...] = (),
    story: tuple[replies.EventView, ...] = (),
    **changes: Any,
) -> replies.JobDetail:
    fields: dict[str, Any] = {
        "job": view, "argv": None, "shell": ("/bin/sh", "-c"), "setup": "", "cwd": "/home/u/lm",
        "env_names": ("HOME", "PATH"), "retries": 0, "backoff_s": 10.0, "backoff_max_s": 600.0,
        "retry_args": "", "time_limit_s": None, "grace_s": 10.0, "linger_s": 10.0, "uid": 0,
        "attempts": attempts, "story": story,
    }  # fmt: skip
    return replies.JobDetail(**fields | changes)


DETAIL = detail(
    done(
        37, "failed", exit_code=2, attempt=2, name="sweep", gpus=1, priority=5, retries_left=0,
        source="night", where="gpu.queue:7",
    ),
    (
        attempt(37, 1, phase="", outcome="killed", signal=9, why="it used too much memory",
                started_at_ms=NOW_MS - 9_000_000, ended_at_ms=NOW_MS - 5_000_000, energy_j=3600.0),
        attempt(37, 2, phase="", outcome="failed", exit_code=2, lease=("1:500",), user_s=812.5,
                system_s=3.5, max_rss_kib=2_400_000, started_at_ms=NOW_MS - 4_000_000,
                ended_at_ms=NOW_MS - 300_000, energy_j=7200.0, peak_vram_mib=11_470, gpu_util=87,
                rule="the fullest that has room, so that whole GPUs stay free"),
    ),
    (
        event(1, 37, "submitted"),
        event(2, 37, "started", 1, pid=4711),
        event(3, 37, "ended", 1, outcome="killed", signal=9, why="it used too much memory"),
        event(4, 37, "started", 2, pid=4799),
        event(5, 37, "ended", 2, outcome="failed", exit_code=2, killed=["sleep (4801)", "tee"]),
        event(6, 37, "wrong-gpu", 2, pid=4799, program="python", on="GPU-00000001-aaaa",
              assigned=["GPU-00000000-aaaa"]),
    ),
    retries=1, retry_args="--resume", time_limit_s=43200.0, setup="module load cuda",
)  # fmt: skip

REASON = (
    "waits for 2 GPUs at once: GPUs 1 and 2 are kept for it; GPU 3 takes no work: used by pid 4711 "
    "(python of alice, 11.2 GiB); GPU 4 is quarantined: Xid 79: it has fallen off the bus "
    "(gpuctl gpus heal 4); it is the next one"
)
WAITS = replies.ReasonView(
    46, "queued", REASON,
    ("GPU 0: taken by job 42", "GPU 1: has room, and is kept for this job",
     "GPU 3: takes no work: used by pid 4711 (python of alice, 11.2 GiB) and some more of hers"),
)  # fmt: skip
TAKEN = "waits for a free slot: all 4 are taken"
HOUR_MS = 3_600_000


def foretold(number: int, **about: Any) -> replies.ReasonView:
    return replies.ReasonView(number, "queued", TAKEN, **about)


# Each thing that can be said of when.
FORETOLD = (
    foretold(50, start_ms=NOW_MS + 9 * HOUR_MS, after=(17,), assumes=("limits",),
             starts_now=("with 2 GPUs", "with a time limit of 25m")),
    foretold(51, start_ms=NOW_MS + 1_234_567, after=(17, 18), assumes=("usual",)),
    foretold(52, start_ms=NOW_MS + 40 * HOUR_MS, after=(17, 18, 19, 20, 21),
             assumes=("limits", "usual")),
    foretold(53, start_ms=NOW_MS + 100 * HOUR_MS),
    foretold(54, start_ms=NOW_MS + 8760 * HOUR_MS, assumes=("limits", "release", "undrain")),
    foretold(55, start_ms=NOW_MS + 1000, assumes=("undrain",)),
    foretold(56, later_than_ms=NOW_MS + 30 * HOUR_MS, assumes=("limits",)),
    foretold(57, unknown="jobs 17 and 18 have no time limit"),
    foretold(58, never="it could not be started in time for its deadline",
             assumes=("limits", "undrain")),
    foretold(60, start_ms=NOW_MS + HOUR_MS, array=59, indices="1-9", count=9),
    foretold(71, unknown="job 17 has no time limit", array=69, indices="2-9", count=8),
)  # fmt: skip
ENDED = replies.ReasonView(
    37, "done", "done: it failed with exit status 2", attempts=DETAIL.attempts
)
EDITED = detail(
    job(
        45, reason="waits for a free slot: all 4 are taken", priority=9, name="sweep", gpus=2,
        vram_mib=12288, command="python train.py \\\n  --lr 1e-3 > 'log 1'",
    ),
    (),
    (
        event(1, 45, "submitted"),
        event(2, 45, "edited", changed={
            "command": ["python train.py", "python train.py \\\n  --lr 1e-3 > 'log 1'"],
            "env": ["LR"], "gpus": [None, 2], "time_limit_s": [7200.0, None],
        }),
        event(3, 45, "moved", to="before", beside=17),
        event(4, 45, "swapped", beside=44),
    ),
    retry_on=("failed", "killed", "timed-out", "lost"), after=("12", "14-20"),
    begin_ms=NOW_MS + 3_600_000,
)  # fmt: skip
# Asked to save its state once, and paused now.
PAUSED = detail(
    JOBS[11],
    (
        attempt(47, 1, phase="", outcome="killed", exit_code=0, lease=("3",),
                why="it was asked to save its state and leave",
                started_at_ms=NOW_MS - 900_000, ended_at_ms=NOW_MS - 400_000),
        attempt(47, 2, phase="paused", lease=("3",)),
    ),
    (
        event(1, 47, "checkpoint-requested", 1, reason="asked", signal=10, grace_s=300.0),
        event(2, 47, "ended", 1, outcome="killed", exit_code=0, retry_at_ms=NOW_MS - 398_000,
              why="it was asked to save its state and leave"),
        event(3, 47, "paused", 2),
    ),
    grace_s=300.0,
)  # fmt: skip
