"""A full disk: nothing is written, nothing is lost, and ends can still be recorded."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gpud.core.changes import Changes
from gpud.core.model import JobSpec, NewJob
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.ports import StorageError
from gpud.store import reserve as reserve_module
from gpud.store.reserve import PAUSE_S, SIZE, Reserve
from gpud.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore.open(tmp_path)) as opened:
        yield opened


def some_jobs(state: State, count: int) -> Changes:
    for _ in range(count):
        job = state.add(NewJob(JobSpec(b"x" * 500, env=b"E=1")), 1)
        state.tell(job.id, 0, "submitted", 1)
    return state.take_changes()


def test_a_commit_that_does_not_fit_is_not_written_and_may_be_repeated(
    store: SqliteStore, tmp_path: Path
) -> None:
    state = State(Pool([]))
    store.commit(some_jobs(state, 1))
    before = store.load()
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    (limit,) = store._db.execute(f"PRAGMA max_page_count = {pages + 3}").fetchone()
    changes = some_jobs(state, 200)
    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            store.commit(changes)
        assert caught.value.message == f"cannot write {tmp_path / 'gpud.db'}: the disk is full"
        assert caught.value.kind == "storage"
        assert store.load() == before
        assert store.last_seq() == 1
        assert store.counts()[0]["queued"] == 1
    store._db.execute(f"PRAGMA max_page_count = {limit * 100}")
    assert len(store.commit(changes)) == 200
    assert {job.id: job for job in store.load().jobs} == state.jobs
    assert store.spec(changes.new[-1][0]) == changes.new[-1][1].spec


def test_another_program_that_holds_the_database(store: SqliteStore, tmp_path: Path) -> None:
    store._db.execute("PRAGMA busy_timeout = 0")
    changes = some_jobs(State(Pool([])), 1)
    with closing(sqlite3.connect(tmp_path / "gpud.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program has locked it"):
            store.commit(changes)
        other.execute("ROLLBACK")
    assert len(store.commit(changes)) == 1


# -- the reserve -------------------------------------------------------------------------------


def test_the_reserve_has_real_blocks(store: SqliteStore, tmp_path: Path) -> None:
    status = (tmp_path / "reserve").stat()
    assert status.st_size == SIZE


def test_the_reserve_is_given_back_and_made_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(reserve_module, "ROOM", 0)
    reserve = Reserve(tmp_path / "reserve", clock=lambda: now)
    assert not reserve.release()
    now += PAUSE_S
    reserve.restore()
    assert reserve.held
    assert Reserve(tmp_path / "reserve").held
    assert reserve.release()
    assert not list(tmp_path.iterdir())
    reserve.restore()
    assert not reserve.held
    now += PAUSE_S
    reserve.restore()
    assert reserve.held


def test_a_reserve_cut_short_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "reserve").write_bytes(b"x" * 1000)
    reserve = Reserve(tmp_path / "reserve")
    assert not reserve.held
    reserve.restore()
    assert (tmp_path / "reserve").stat().st_size == SIZE


def test_no_reserve_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reserve, "_room", lambda self: SIZE)
    reserve = Reserve(tmp_path / "reserve")
    reserve.restore()
    assert not reserve.held
    assert not reserve.needed()
    monkeypatch.setattr(Reserve, "_room", lambda self: SIZE - 1)
    assert reserve.needed()


# -- a disk that is really full ----------------------------------------------------------------

ON_A_SMALL_DISK = """
import errno, os, subprocess, sys
from pathlib import Path
from gpud.core.model import Device, JobSpec, NewJob, Outcome
from gpud.core.placement import place
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.errors import GpudError
from gpud.ports import StorageError
from gpud.store import reserve
from gpud.store.sqlite import SqliteStore

disk = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk]).returncode:
    sys.exit(77)
reserve.PAUSE_S = 0.0

def fill():
    with open(disk / "ballast", "ab", buffering=0) as ballast:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while ballast.write(b"x" * size) == size:
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC

store = SqliteStore.open(disk)
assert (disk / "reserve").exists()
state = State(Pool([Device("0", ("0",))]))
job = state.add(NewJob(JobSpec(b"sleep 1")), 1)
state.activate(job, place(state.pool, job.request), 1)
store.commit(state.take_changes())
fill()

# A submit that is too large for the reserve: refused, and the reserve is spent on it.
for _ in range(9000):
    state.add(NewJob(JobSpec(b"x" * 500)), 1)
large = state.take_changes()
try:
    store.commit(large)
except StorageError as error:
    assert error.message.endswith("the disk is full"), error.message
else:
    raise AssertionError("it fitted")
assert not (disk / "reserve").exists()
assert len(store.load().jobs) == 1

# The end of a job fits into what the reserve gave back.
state.attempts[job.id].outcome = Outcome.SUCCEEDED
state.finish(job, Outcome.SUCCEEDED, "", 2)
store.commit(state.take_changes())
assert not store.load().jobs

# Room is back: everything is written, and a reserve is kept back again.
(disk / "ballast").unlink()
store.commit(large)
assert len(store.load().jobs) == 9000
assert (disk / "reserve").exists()
store.close()

# gpud starts on a disk that is full, by the reserve; without one it says why it cannot.
fill()
store = SqliteStore.open(disk)
assert store.recall([1]) == [job]
assert not (disk / "reserve").exists()
store.close()
fill()
try:
    SqliteStore.open(disk)
except GpudError as error:
    assert error.message == f"cannot open {disk / 'gpud.db'}: the disk is full", error.message
else:
    raise AssertionError("it fitted")
"""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mounts = ["unshare", "--map-root-user", "--mount"]
    try:
        can = subprocess.run([*mounts, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        can = False
    if not can:
        pytest.skip("no mount namespace to make a small disk in")
    done = subprocess.run(
        [*mounts, sys.executable, "-c", ON_A_SMALL_DISK, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode == 77:
        pytest.skip(f"no small disk: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
