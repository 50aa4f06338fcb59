"""kill -9 of the daemon at random moments under load: nothing acknowledged is lost, nothing twice.

`GPUD_KILLS` sets how many kills (default 8), `GPUD_SEED` repeats a failure: the seed is printed.
"""

from __future__ import annotations

import json
import os
import random
import select
import time
from collections import Counter

import pytest

from tests.end_to_end.conftest import Box

KILLS = int(os.environ.get("GPUD_KILLS", "8"))
SEED = int(os.environ.get("GPUD_SEED", str(time.time_ns() % 1_000_000)))


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_random_kills(box: Box) -> None:
    print(f"GPUD_SEED={SEED}")
    dice = random.Random(SEED)
    ran = box.home / "ran"
    queue = box.home / "gpu.queue"
    queue.touch()
    config = box.home / "gpud.toml"
    config.write_text(
        '[pool]\ngpus = ["0", "0", "1"]\n'
        '[source.q]\ntype = "queue-file"\npath = "gpu.queue"\npoll_s = 0.1\n'
    )
    acknowledged: dict[int, int] = {}  # id -> the exit status it will have
    lines = 0
    for round_no in range(KILLS):
        daemon = box.serve("--config", str(config), gpus="")
        deadline = time.monotonic() + dice.uniform(0.05, 1.0)
        while time.monotonic() < deadline:
            code = dice.randrange(4)
            pause = dice.choice(("", "sleep 0.05; ", "sleep 0.4; "))
            key = f"{round_no}-{len(acknowledged)}"
            command = f"{pause}echo s{code} $GPUD_JOB_ID.$GPUD_ATTEMPT >> {ran}; exit {code}"
            for job in box.submit("--key", key, command):
                acknowledged[job] = code
            with queue.open("a") as file:
                lines += 1
                file.write(f"echo q{lines} $GPUD_JOB_ID.$GPUD_ATTEMPT >> {ran}\n")
        select.select([], [], [], dice.uniform(0, 0.2))
        box.kill(daemon)
    box.serve("--config", str(config), gpus="")
    box.until(
        "all lines are taken and all jobs done",
        lambda: f"q{lines} " in ran.read_text() and box.ctl("wait", "all", check=False) is not None,
    )
    box.ctl("wait", "all", check=False)
    words = [line.split() for line in ran.read_text().splitlines()]
    attempts = Counter(attempt for _, attempt in words)
    assert [a for a, n in attempts.items() if n > 1] == []
    queued = Counter(word for word, _ in words if word.startswith("q"))
    assert queued == {f"q{n}": 1 for n in range(1, lines + 1)}
    started = {int(attempt.split(".")[0]) for _, attempt in words}
    assert set(acknowledged) <= started
    listed = json.loads(box.ctl("ls", "all", "--limit", "0", "--json").stdout)["jobs"]
    found = {job["id"]: (job["attempt"], job["exit_code"]) for job in listed}
    for job, code in acknowledged.items():
        assert found[job] == (1, code)
    assert "free" in box.ctl("gpus").stdout
