"""What gpud costs while nothing happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from .instance import Daemon, rss_mb, seeds, wake_ups
from .measure import Bench, Measured

CONFIG = """\
[source.queue]
type = "queue-file"
path = "gpu.queue"
"""


def idle(bench: Bench) -> Iterator[Measured]:
    """Two daemons side by side: with a queue file and with no source; both with jobs queued that
    do not start."""
    effort = bench.effort
    place = bench.fresh("idle-source")
    (place / "gpu.queue").write_text("")
    with (
        Daemon(place, "0", config=CONFIG) as watching,
        Daemon(bench.fresh("idle-bare"), "0") as bare,
    ):
        for gpud in (watching, bare):
            gpud.meet_runner()
            with closing(gpud.connect()) as wire:
                wire.ask("drain")
                wire.exchange(wire.bulk(seeds(effort.large)))
        time.sleep(effort.settle_s)
        runner = min(watching.runners())
        pids = (watching.pid, bare.pid, runner)
        before = [wake_ups(pid) for pid in pids]
        time.sleep(effort.idle_s)
        per_s = [(wake_ups(pid) - b) / effort.idle_s for pid, b in zip(pids, before, strict=True)]
        rss = [rss_mb(watching.pid), rss_mb(bare.pid)]
        runner_rss = rss_mb(runner)
    yield Measured("idle-source", [per_s[0]], detail={"seconds": effort.idle_s})
    yield Measured("idle-bare", [per_s[1]])
    yield Measured("idle-runner", [per_s[2]])
    yield Measured("idle-rss", rss[:1], detail={"without_source": rss[1], "queued": effort.large})
    yield Measured("idle-runner-rss", [runner_rss])
