"""The words of `gpud run`."""

from __future__ import annotations

from typing import Any

import pytest

from gpud.ctl import words
from gpud.daemon import report
from gpud.protocol.replies import JobView

UUID = "GPU-8f2c1d3e-0000-1111-2222-333344445555"


def view(**fields: Any) -> JobView:
    given: dict[str, Any] = {
        "id": 1, "name": "", "state": "done", "phase": "", "outcome": "succeeded", "reason": "",
        "why": "", "exit_code": 0, "signal": None, "attempt": 1, "retries_left": 0, "priority": 0,
        "gpus": None, "lease": ("0",), "command": "true", "source": "", "where": "",
        "submitted_at_ms": 0, "started_at_ms": 1000, "ended_at_ms": 4200, "not_before_ms": 0,
    }  # fmt: skip
    return JobView(**{**given, **fields})


def test_the_table_fits_its_width_and_says_why() -> None:
    views = [
        view(),
        view(id=12, outcome="failed", exit_code=3, command="python " + "x" * 200),
        view(id=3, outcome="not-started", why="the directory /x does not exist", started_at_ms=0),
        view(id=4, outcome="killed", exit_code=None, signal=9),
    ]
    lines = report.table(views, 80)
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    for part in ("failed 3", "killed SIGKILL", "the directory /x does not exist", "3.2s", "…"):
        assert part in text
    assert [line.split()[0] for line in lines if line.strip()[0].isdigit()] == ["1", "3", "4", "12"]


def test_what_a_job_made_of_its_gpus_is_in_the_table_when_any_is_known() -> None:
    header = report.table([view(), view(id=2)], 80)[0].split()
    assert header == ["id", "end", "gpu", "took", "command"]
    header, first, second = (
        line.split() for line in report.table([view(gpu_util=0), view(id=2)], 80)
    )
    assert header == ["id", "end", "gpu", "took", "util", "command"]
    assert (first[4], second[4]) == ("0%", "-")
    views = [view(gpu_util=87, peak_vram_mib=3072, energy_j=35_280)]
    header, first = (line.split() for line in report.table(views, 80))
    assert header[4:7] == ["util", "memory", "energy"]
    assert first[4:9] == ["87%", "3", "GiB", "9.8", "Wh"]


@pytest.mark.parametrize("lease", [("0,1,2,3,4,5,6,7",), (UUID,), (f"{UUID}:500", f"{UUID}:500")])
def test_the_widest_row_fits_in_80_columns(lease: tuple[str, ...]) -> None:
    most = view(
        id=123456, outcome="killed", exit_code=None, signal=9, lease=lease, ended_at_ms=86_399_000,
        gpu_util=100, peak_vram_mib=81_559, energy_j=40e6, command="python " + "x" * 100,
    )  # fmt: skip
    header, row = report.table([most], 80)
    assert max(len(header), len(row)) <= 80
    for part in ("100%", "79.6 GiB", "11.11 kWh"):
        assert part in row


def test_gpud_run_and_gpuctl_tell_energy_alike() -> None:
    for joules in (0.0, 340.0, 7200.0, 35_280.0, 4_500_000.0):
        assert report.energy(view(energy_j=joules)) == words.energy(joules)


def test_counts_name_only_what_happened() -> None:
    assert report.counts({"succeeded": 3, "failed": 1, "lost": 0}, 0) == (
        "4 jobs: 3 succeeded, 1 failed"
    )
    assert report.counts({"succeeded": 1}, 0) == "1 job: 1 succeeded"
    assert report.counts({}, 2) == "2 jobs: 2 not run"
    assert report.counts({}, 0) == "no jobs"


def test_a_command_is_shown_on_one_line() -> None:
    assert report.shown(b"a\nb\x1b[31m\xff", 80) == "a⏎b?[31m\\xff"
    assert report.shown(b"x" * 100, 10) == "x" * 9 + "…"


def test_progress() -> None:
    assert report.progress(1, 2, 0, 3, None) == "1 done (0 failed), 2 running, 3 left"
    assert report.progress(1, 2, 0, 3, 61.0).endswith("about 1m1s to go")


@pytest.mark.parametrize(
    ("lease", "text"),
    [((), "-"), (("0",), "0"), (("0:500",), "0"), (("0,1",), "0,1"), (("cpu:62",), "cpu")],
)
def test_a_share_is_not_shown_in_the_table(lease: tuple[str, ...], text: str) -> None:
    assert report.where(lease) == text
