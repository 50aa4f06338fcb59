"""What tests of GPUs ask `gpuctl`, and commands whose processes the driver lists."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.devices.nvml_stub import Stub
from tests.end_to_end.conftest import Box


def gpus(box: Box) -> list[dict[str, Any]]:
    reply = json.loads(box.ctl("gpus", "--json").stdout)
    return [gpu for gpu in reply["gpus"] if gpu["key"] != "cpu"]


def problem(box: Box, index: int) -> str:
    return str(gpus(box)[index]["problem"])


def story(box: Box, job: int, kind: str) -> list[dict[str, Any]]:
    return [event["detail"] for event in box.show(job)["story"] if event["kind"] == kind]


def phase(box: Box, job: int) -> str:
    """Of one that is active; else its state."""
    return str(box.job(job).get("phase") or box.job(job)["state"])


def wait_for_a_look(box: Box) -> None:
    """One that began after this was called."""
    now_ms = time.time_ns() // 1_000_000
    box.until(
        "a look",
        lambda: all(one["seen_at_ms"] > now_ms for gpu in gpus(box) for one in gpu["gpus"]),
    )


def gate(box: Box, name: str = "gate") -> Path:
    path = box.home / name
    os.mkfifo(path)
    return path


def holding(stub: Stub, index: int, mib: int, then: str, *, place: str = "") -> str:
    """A command whose own process has memory of a GPU, as the driver lists it; `place`: of that
    MIG instance."""
    new, use = f"{stub.holders}/new.$$", f"{index} {mib} {place}"
    return f'echo "{use}" > {new}; mv {new} {stub.holders}/$$; {then}'
