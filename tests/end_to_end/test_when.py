"""`gpuctl why` says when a job will start: the installed commands, and the clock of the machine."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.end_to_end.conftest import Box

HOUR_MS = 3_600_000
ENDING_MS = 20_000  # the grace and what a shell leaves behind, as they are by default


def told(box: Box, job: int) -> dict[str, Any]:
    (reason,) = json.loads(box.ctl("why", str(job), "--json").stdout)["reasons"]
    assert isinstance(reason, dict)
    return reason


def test_a_start_is_foretold_before_and_after_a_kill(box: Box) -> None:
    daemon = box.serve(gpus="0")
    hold = box.home / "gate"
    os.mkfifo(hold)
    [first] = box.submit("--time-limit", "5h", f"read x < {hold}")
    [last] = box.submit("--priority", "-1", "true")
    [second] = box.submit("--time-limit", "1h", "true")
    box.until("the first runs", lambda: box.job(first)["phase"] == "running")
    first_ms = box.job(first)["started_at_ms"] + 5 * HOUR_MS + ENDING_MS
    before = told(box, second), told(box, last)
    starts = [(found["start_ms"], found["after"], found["assumes"]) for found in before]
    assert starts == [
        (first_ms, [first], ["limits"]),
        (first_ms + HOUR_MS + ENDING_MS, [second], ["limits"]),
    ]
    reason, when = box.ctl("why", str(second)).stdout.splitlines()
    assert reason.startswith("waits for the slot: it is taken")
    assert when.startswith("starts about ")
    assert when.endswith(f" (in 5h), after job {first}, if time limits are used up")
    box.kill(daemon)
    box.serve(gpus="0")
    assert (told(box, second), told(box, last)) == before
    hold.write_text("go\n")
    box.ctl("wait", str(last))
    assert box.job(second)["started_at_ms"] < box.job(last)["started_at_ms"] < first_ms


def test_a_person_is_expected(box: Box) -> None:
    box.serve()
    box.ctl("drain")
    [job] = box.submit("--hold", "true")
    assert box.ctl("why", str(job)).stdout.splitlines() == [
        f"held: gpuctl release {job}",
        "if it is released and the pool is undrained now: starts at any moment",
    ]
