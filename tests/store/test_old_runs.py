"""Old directories of `gpud run`: only those that are over, whole, and nobody's."""

from __future__ import annotations

import fcntl
import os
from contextlib import closing
from pathlib import Path

import pytest

from gpud.core.model import JobSpec, NewJob, Outcome
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.store.old_runs import GOING, prune_runs
from gpud.store.sqlite import SqliteStore
from gpud.store.statedir import StateDir

DAY = 86_400_000
NOW = 1000 * DAY


def a_run(state_dir: Path, name: str, ended_at_ms: int, *, done: bool = True) -> Path:
    directory = state_dir / "runs" / name
    directory.mkdir(parents=True, mode=0o700)
    StateDir.open(directory, configured=True).close()
    with closing(SqliteStore.open(directory, durable=False)) as store:
        state = State(Pool([]))
        job = state.add(NewJob(JobSpec(b"true")), 1)
        if not done:
            state.add(NewJob(JobSpec(b"true")), 1)
        state.finish(job, Outcome.CANCELLED, "", ended_at_ms)
        store.commit(state.take_changes())
    return directory


def test_runs_that_are_over_go(tmp_path: Path) -> None:
    old = a_run(tmp_path, "old", NOW - 9 * DAY)
    young = a_run(tmp_path, "young", NOW - 3 * DAY)
    unfinished = a_run(tmp_path, "unfinished", NOW - 9 * DAY, done=False)
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=False) == (["old"], "")
    assert old.exists()
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == (["old"], "")
    assert not old.exists()
    assert young.exists()
    assert unfinished.exists()
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == ([], "")


@pytest.mark.parametrize("lock", ["lock", "runner-1.lock"])
def test_one_that_somebody_has_stays(tmp_path: Path, lock: str) -> None:
    run = a_run(tmp_path, "old", NOW - 9 * DAY)
    fd = os.open(run / lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == ([], "")
        assert run.exists()
    finally:
        os.close(fd)
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == (["old"], "")


def test_what_nobody_can_look_into_stays(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "notes").mkdir(parents=True)
    (runs / "notes" / "lock").touch()
    (runs / "damaged").mkdir()
    (runs / "damaged" / "gpud.db").write_bytes(b"nonsense" * 100)
    (runs / "damaged" / "lock").touch()
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == ([], "")
    assert sorted(os.listdir(runs)) == ["damaged", "notes"]
    assert prune_runs(tmp_path / "nowhere", 5 * DAY, NOW, really=True) == ([], "")


def test_one_that_was_half_removed_is_removed(tmp_path: Path) -> None:
    run = a_run(tmp_path, "old", NOW - 9 * DAY)
    run.rename(run.with_name("old" + GOING))
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == ([], "")
    assert os.listdir(tmp_path / "runs") == []


def test_a_run_that_was_killed_is_over_when_its_jobs_are(tmp_path: Path) -> None:
    """Its last commits are in the write-ahead log."""
    run = tmp_path / "runs" / "killed"
    run.mkdir(parents=True, mode=0o700)
    (run / "lock").touch()
    store = SqliteStore.open(run, durable=False)
    state = State(Pool([]))
    jobs = [state.add(NewJob(JobSpec(b"true")), 1) for _ in range(2)]
    store.commit(state.take_changes())
    copy = tmp_path / "runs" / "copy"
    copy.mkdir(mode=0o700)
    for name in ("gpud.db", "gpud.db-wal", "lock"):
        (copy / name).write_bytes((run / name).read_bytes())
    assert prune_runs(tmp_path, 5 * DAY, NOW, really=True) == ([], "")
    for job in jobs:
        state.finish(job, Outcome.CANCELLED, "", NOW - 9 * DAY)
    store.commit(state.take_changes())
    for name in ("gpud.db", "gpud.db-wal"):
        (copy / name).write_bytes((run / name).read_bytes())
    for leftover in copy.glob("gpud.db-shm"):
        leftover.unlink()
    gone, problem = prune_runs(tmp_path, 5 * DAY, NOW, really=False)
    store.close()
    assert (sorted(gone), problem) == (["copy", "killed"], "")
