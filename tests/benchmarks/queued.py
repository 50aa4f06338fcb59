"""What a long queue costs: to submit it, to start with it, to run jobs in front of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing

from .instance import Daemon, Wire, rss_mb, seeds
from .measure import Bench, Measured

SLOTS = ("0", "0", "0", "0")


def bulk(bench: Bench) -> Iterator[Measured]:
    """One submit into a daemon that has nothing yet, sent to acknowledged."""
    for key, count in (("bulk-10k", bench.effort.large), ("bulk-100k", bench.effort.huge)):
        samples = []
        for _ in range(min(3, bench.effort.rounds)):
            with Daemon(bench.fresh("bulk"), *SLOTS) as gpud, closing(gpud.connect()) as wire:
                wire.ask("drain")
                samples.append(_sent_to_acknowledged_s(wire, seeds(count)))
        yield Measured(key, samples, detail={"jobs": count})


def array(bench: Bench) -> Iterator[Measured]:
    """An array in one job line: submitted, listed, cancelled; what the daemon's memory says to
    that, against the daemon before."""
    count, times, memory = bench.effort.huge, {"submit": [], "ls": [], "cancel": []}, []
    for _ in range(min(3, bench.effort.rounds)):
        with Daemon(bench.fresh("array"), *SLOTS) as gpud, closing(gpud.connect()) as wire:
            wire.ask("drain")
            before = rss_mb(gpud.pid)
            job = {"command": "true", "cwd": "/", "array": f"0-{count - 1}"}
            for verb, fields in (
                ("submit", {"job": job}),
                ("ls", {"jobs": [1], "limit": 0}),
                ("cancel", {"jobs": [1]}),
            ):
                begin = time.monotonic()
                wire.ask(verb, **fields)
                times[verb].append(time.monotonic() - begin)
                if verb == "ls":
                    memory.append(rss_mb(gpud.pid) / before)
    for verb, samples in times.items():
        yield Measured(f"array-{verb}", samples, detail={"elements": count})
    yield Measured("array-rss", memory, detail={"elements": count})


def restart(bench: Bench) -> Iterator[Measured]:
    """From the exec of `gpud serve` to the first answered `ls`."""
    count, samples, rss = bench.effort.huge, [], []
    with Daemon(bench.fresh("restart"), *SLOTS) as gpud:
        with closing(gpud.connect()) as wire:
            wire.ask("drain")
            wire.exchange(wire.bulk(seeds(count)))
        for _ in range(bench.effort.rounds):
            gpud.stop()
            begin = time.monotonic()
            with closing(gpud.start()) as wire:
                listed = wire.ask("ls")
                samples.append(time.monotonic() - begin)
                if len(listed["jobs"]) + listed["more"] != count:
                    raise RuntimeError(f"{count} jobs were queued, and ls knows of {listed}")
                gpud.meet_runner()
                rss.append(rss_mb(gpud.pid))
    yield Measured("restart-100k", samples, detail={"jobs": count})
    yield Measured("restart-rss", rss)


def growth(bench: Bench) -> Iterator[Measured]:
    """The same jobs run in front of a short and of a long queue of lower priority, in turns."""
    few, many, jobs = bench.effort.large // 10, bench.effort.huge, bench.effort.growth_jobs
    submit_s: list[tuple[float, ...]] = []
    run_s: list[tuple[float, ...]] = []
    with (
        Daemon(bench.fresh("growth-few"), *SLOTS) as short,
        Daemon(bench.fresh("growth-many"), *SLOTS) as long,
        closing(short.connect()) as short_wire,
        closing(long.connect()) as long_wire,
    ):
        wires = (short_wire, long_wire)
        for gpud, wire, count in zip((short, long), wires, (few, many), strict=True):
            gpud.meet_runner()
            wire.ask("drain")
            wire.exchange(wire.bulk(["true"] * count, priority=-1))
        for _ in range(bench.effort.rounds + 1):
            taken = [_in_front_s(wire, jobs) for wire in wires]
            submit_s.append(tuple(submit for submit, _ in taken))
            run_s.append(tuple(run for _, run in taken))
    del submit_s[0], run_s[0]  # the first round fills caches
    both = [
        tuple(map(sum, zip(submits, runs, strict=True)))
        for submits, runs in zip(submit_s, run_s, strict=True)
    ]
    yield Measured(
        "growth",
        [b / a for a, b in both],
        detail={
            "queued": [few, many],
            "submit": statistics.median(b / a for a, b in submit_s),
            "run": statistics.median(b / a for a, b in run_s),
        },
    )


def _in_front_s(wire: Wire, jobs: int) -> tuple[float, float]:
    """Seconds to submit, and seconds to run to the end, with the pool drained in between."""
    lines = wire.bulk(["true"] * jobs)
    begin = time.monotonic()
    first = wire.exchange(lines)["first"]
    submitted = time.monotonic()
    wire.ask("undrain")
    wire.wait(first, jobs)
    ended = time.monotonic()
    wire.ask("drain")
    while wire.ask("status")["active"]:
        time.sleep(0.01)
    return submitted - begin, ended - submitted


def _sent_to_acknowledged_s(wire: Wire, commands: list[str]) -> float:
    lines = wire.bulk(commands)
    begin = time.monotonic()
    wire.exchange(lines)
    return time.monotonic() - begin
