"""What the machine (machine.py) draws from: pools, jobs, ends, and how far a turn gets."""

from __future__ import annotations

from hypothesis import strategies as st

from gpud.amounts import URGENT
from gpud.core.health import GpuPolicy
from gpud.core.model import AUTO_VRAM, CPU_LANE, Device, JobSpec, Outcome, Request, RetryPolicy
from gpud.core.rules import DEFAULT, NONE, Rule, Rules

from .turns import Fate

ONE, TWO = Device("a", ("a",)), Device("b", ("b",))
SHARED, THIRDS = Device("c", ("c",), 2), Device("d", ("d",), 3)
PAIR, CPUS = Device("p0,p1", ("p0", "p1")), Device(CPU_LANE, (), 2)
NIGHTLY = Device("a", ("a",), gates=("gpu:a",))  # the first device again, with a window
ROOMY = Device("m", ("m",), 2, memory_mib=16_000)  # its memory is configured, nothing can be seen
POOLS = [
    (ONE,),
    (ONE, TWO),
    (ONE, TWO, CPUS),
    (SHARED, CPUS),
    (THIRDS, ONE),
    (PAIR, ONE),
    (PAIR, SHARED, TWO, CPUS),
    (Device("a", ("a",), 2), TWO),  # the first device again, shared now
    (Device("a,b", ("a", "b")), CPUS),  # the same GPUs, leased as one
    (Device("p0", ("p0",)), Device("p1", ("p1",), 2)),  # a pair taken apart
    (ROOMY, ONE),
    (NIGHTLY, TWO),
    (CPUS,),
    (),
]


def gpu(
    name: str, *, slots: int = 1, guest: bool = False, gates: tuple[str, ...] = (), **distance: int
) -> Device:
    """One that can be looked at."""
    steps = {f"GPU-{other}": step for other, step in distance.items()}
    return Device(
        key=f"GPU-{name}",
        ids=(str(ord(name) - ord("u")),),
        slots=slots,
        uuids=(f"GPU-{name}",),
        model="H100",
        memory_mib=40_000,
        guest=guest,
        distance=steps,
        gates=gates,
    )


U, V, HALVES, GUEST = gpu("u", v=0), gpu("v", u=0), gpu("w", slots=2), gpu("x", guest=True)
BOTH = Device("0,1", ("0", "1"), uuids=("GPU-u", "GPU-v"), model="H100", memory_mib=40_000)
STRANGE = Device("7", ("7",), problem="the NVIDIA driver knows no GPU 7")
WATCHED = [
    (U,),
    (U, V, CPUS),
    (HALVES, U),
    (U, GUEST),
    (GUEST, CPUS, STRANGE),
    (BOTH, HALVES),
    (U, V, HALVES, GUEST),
    (gpu("u", v=0, gates=("gpu:a",)), V),
]
RICH = (ONE, TWO, SHARED, PAIR, CPUS, U, V, HALVES)  # serves every request below
GUESTS = [pool for pool in WATCHED if GUEST in pool]
POLICIES_OF_POOL = [
    GpuPolicy(),
    GpuPolicy(tolerance_mib=100, ignored=("dcgm",), idle_ms=15_000),
    GpuPolicy(idle_ms=5_000, stop_idle=True),
    GpuPolicy(respect_others=False, release_wait_ms=5_000),
]

REQUESTS = [
    *[Request(), Request(), Request(1), Request(2), Request(0), Request(3)],
    *[Request(share_milli=300), Request(1, share_milli=500), Request(exclusive=True)],
    *[Request(vram_mib=15_000), Request(vram_mib=25_000), Request(1, vram_mib=9_000)],
    *[Request(2, vram_mib=20_000), Request(gpu_model="h100"), Request(2, exclusive=True)],
    *[Request(vram_mib=AUTO_VRAM, likeness="x"), Request(1, vram_mib=AUTO_VRAM, likeness="y")],
]
POLICIES = [
    RetryPolicy(),
    RetryPolicy(1, backoff_s=0),
    RetryPolicy(3, backoff_s=10, backoff_max_s=25),
    RetryPolicy(2, backoff_s=1, on=(Outcome.FAILED, Outcome.NOT_STARTED)),
    RetryPolicy(1, backoff_s=5, backoff_max_s=2, on=(Outcome.LOST, Outcome.SUCCEEDED)),
    RetryPolicy(2, backoff_s=0, on=(), oom=True),
    RetryPolicy(2, backoff_s=2, on=(Outcome.KILLED,), codes=(3, 75)),
]
ENDS = [
    {"exit_code": 0},
    {"exit_code": 0},
    {"exit_code": 3},
    {"exit_code": 1, "oom": "cuda"},
    {"signal": 9},
    {"signal": 15, "timed_out": True},
]

BREAKDOWNS = [
    Fate.CRASH_BEFORE_COMMIT,
    Fate.CRASH_BEFORE_ACTIONS,
    Fate.CRASH_AMID_ACTIONS,
    Fate.STORE_FULL,
]

fates = st.sampled_from([Fate.WHOLE, Fate.WHOLE, Fate.WHOLE, Fate.LATER])
often = st.sampled_from([True, True, True, False])
specs = st.builds(
    JobSpec,
    command=st.just(b"train"),
    request=st.sampled_from(REQUESTS),
    priority=st.sampled_from([0, 0, 0, 1, -1, URGENT]),
    retry=st.sampled_from(POLICIES),
    held=st.sampled_from([False, False, False, True]),
    time_limit_s=st.sampled_from([None, None, 1.0, 30.0, 1000.0]),
    begin_ms=st.sampled_from([0, 0, 0, 1_000_010, 1_012_000]),
    deadline_ms=st.sampled_from([0, 0, 0, 1_000_030, 1_040_000, 2_500_000]),
    grace_s=st.sampled_from([10.0, 0.5]),
    checkpoint=st.sampled_from([0, 10]),
    uid=st.sampled_from([1, 1, 2, 3]),
    group=st.sampled_from(["", "g", "g", "h"]),
    labels=st.sampled_from([(), (), ("a=b",)]),
    source=st.sampled_from(["", "", "s"]),
)
OFTEN = ("group:g", "group:g", "group:g", "user:1", "label:a=b")
KEYS = ("group:g", "group:h", "user:1", "user:2", "label:a=b", "source:s", "gpu:a")
NIGHTS = {"clock": "the window nights"}
CLEAN = {"carbon": "clean power"}
RULES = [
    Rules(),
    Rules(),
    Rules({"group:g": Rule(limit=1), "group:h": Rule(limit=2, max_fails=1)}),
    Rules({"user:*": Rule(limit=1), "user:1": Rule(limit=2)}, weights={1: 3.0}),
    Rules({"group:g": Rule(max_fails=2), "label:a=b": Rule(limit=1, max_fails=1)}),
    Rules({"group:h": Rule(windows=NIGHTS), "gpu:a": Rule(windows=NIGHTS)}, weight=2.0),
    Rules({"user:*": Rule(limit=3, windows=NIGHTS | CLEAN), "group:g": Rule(limit=2)}),
    Rules({"source:s": Rule(windows=CLEAN), "user:3": Rule(limit=0), "group:h": Rule(limit=1)}),
]
HALF_LIVES_MS = (0, 0, 60_000, 1_000_000)
WORDS = (None, None, NONE, DEFAULT, 0, 1, 1, 2)
picks = st.lists(st.integers(0, 30), min_size=1, max_size=4)
steps = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["launch", "launch", "refuse", "linger"])),
    min_size=1,
    max_size=5,
)
