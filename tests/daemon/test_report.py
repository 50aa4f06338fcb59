"""The words of `gpud run`."""

from __future__ import annotations

from typing import Any

import pytest

from gpud.daemon import report
from gpud.protocol.replies import JobView


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
    for words in ("failed 3", "killed SIGKILL", "the directory /x does not exist", "3.2s", "…"):
        assert words in text
    assert [line.split()[0] for line in lines if line.strip()[0].isdigit()] == ["1", "3", "4", "12"]


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
