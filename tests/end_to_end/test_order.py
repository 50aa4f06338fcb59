"""Jobs that come after others, begin later, or have to be done in time: the installed commands."""

from __future__ import annotations

import os
from pathlib import Path

from tests.end_to_end.conftest import Box


def gate(box: Box) -> Path:
    path = box.home / "gate"
    os.mkfifo(path)
    return path


def states(box: Box, *jobs: int) -> list[str]:
    return [box.job(job)["outcome"] or box.job(job)["state"] for job in jobs]


def test_a_chain_goes_on_over_a_kill_and_stops_at_a_failure(box: Box) -> None:
    daemon = box.serve(gpus="0 1")
    hold = gate(box)
    [first] = box.submit(f"read x < {hold}; exit 3")
    [second] = box.submit("--after", "@", "true")
    [patient] = box.submit("--after", str(first), "--after-failed", "wait", "echo at last")
    [anyway] = box.submit("--after-any", str(first), "true")
    [last] = box.submit("--after", f"{second},{anyway}", "true")
    assert box.ctl("why", str(second)).stdout.splitlines() == [
        f"waits for job {first}, which is running",
        f"nobody knows when it starts: job {first} has no time limit",
    ]
    box.kill(daemon)
    box.serve(gpus="0 1")
    assert states(box, second, patient, anyway, last) == ["queued"] * 4
    hold.write_text("go\n")
    box.ctl("wait", str(anyway), str(last), check=False)
    assert states(box, second, patient, anyway, last) == [
        "cancelled", "queued", "succeeded", "cancelled",
    ]  # fmt: skip
    told = f"waits for job {first}, which failed: gpuctl retry {first}"
    assert box.ctl("why", str(patient)).stdout.strip() == told
    late = box.ctl("submit", "--after", str(first), "true", check=False)
    assert late.returncode == 1
    assert f"job {first}, which it comes after, failed" in late.stderr
    box.ctl("cancel", str(patient))


def test_lines_of_a_submit_one_after_the_other(box: Box) -> None:
    box.serve(gpus="0 1")
    lines = ["echo 0 >> order"]
    for n in range(1, 20):
        lines += ["#gpud: after=@", f"echo {n} >> order"]
    jobs = box.submit("-", input="\n".join(lines) + "\n", cwd=box.home)
    box.ctl("wait", str(jobs[-1]))
    assert (box.home / "order").read_text().split() == [str(n) for n in range(20)]


def test_not_before_and_not_after(box: Box) -> None:
    daemon = box.serve()
    [later] = box.submit("--begin", "+1h", "true")
    assert "more to begin" in box.ctl("why", str(later)).stdout
    [soon] = box.submit("--begin", "+1s", "true")
    [late] = box.submit("--deadline", "+1s", "--hold", "true")
    box.kill(daemon)
    box.serve()
    box.ctl("wait", str(soon), str(late), check=False)
    assert states(box, later, soon, late) == ["queued", "succeeded", "not-started"]
    job = box.show(soon)
    assert job["attempts"][0]["started_at_ms"] >= job["begin_ms"] > 0
    for words, why in [
        (["--begin", "soon"], '"soon" is no point in time'),
        (["--deadline", "2001-01-01"], "it cannot be done by its deadline"),
        (["--after", "99"], "it cannot come after job 99: no such job"),
    ]:
        done = box.ctl("submit", *words, "true", check=False)
        assert done.returncode in (1, 2)
        assert why in done.stderr
        assert "Traceback" not in done.stderr
