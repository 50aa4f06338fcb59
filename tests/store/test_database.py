"""Opening: refusals in one sentence that touch nothing, creation and migration that are atomic."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from gpud.core.model import JobSpec, NewJob
from gpud.core.pool import Pool
from gpud.core.state import State
from gpud.errors import GpudError
from gpud.store.database import CHECKED_SIZE, PAGE_SIZE, connect
from gpud.store.minimums import check_minimums
from gpud.store.schema import APPLICATION_ID, MIGRATIONS
from gpud.store.sqlite import SqliteStore


def fill(directory: Path, count: int, command: bytes = b"x" * 200) -> Path:
    """A store with `count` queued jobs, closed."""
    state = State(Pool([]))
    for _ in range(count):
        state.add(NewJob(JobSpec(command)), 1)
    with closing(SqliteStore.open(directory, durable=False)) as store:
        store.commit(state.take_changes())
    return directory / "gpud.db"


def refusal(directory: Path) -> GpudError:
    """What open says; the database is as it was before."""
    path = directory / "gpud.db"
    before = path.read_bytes()
    with pytest.raises(GpudError) as caught:
        SqliteStore.open(directory).close()
    assert path.read_bytes() == before
    assert caught.value.kind == "storage"
    assert caught.value.message.startswith(f"cannot open {path}: ")
    return caught.value


# -- what is refused ---------------------------------------------------------------------------


def test_a_newer_database(tmp_path: Path) -> None:
    path = fill(tmp_path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    error = refusal(tmp_path)
    known = len(MIGRATIONS)
    assert error.message.endswith(
        f": it was written by a newer gpud (schema {known + 1}, this one knows {known})"
    )
    assert error.hint == "start the newer gpud, or set another state_dir"


def test_a_newer_version_that_is_still_in_the_journal(tmp_path: Path) -> None:
    path = fill(tmp_path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        assert refusal(tmp_path).message.endswith(
            f"newer gpud (schema {len(MIGRATIONS) + 1}, this one knows {len(MIGRATIONS)})"
        )


def test_the_database_of_another_program(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "gpud.db")) as db:
        db.execute("CREATE TABLE cookies (name TEXT)")
        db.execute("PRAGMA application_id = 42")
    error = refusal(tmp_path)
    assert error.message.endswith("it is the database of another program (application id 0x2a)")


@pytest.mark.parametrize("content", [b"hello\n", b"x" * 9000, b"SQLite format 3\0"])
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gpud.db").write_bytes(content)
    error = refusal(tmp_path)
    assert error.message.endswith("it is damaged, or not a database")
    assert "does not replace it" in error.hint


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "gpud.db").touch()
    assert refusal(tmp_path).message.endswith("it is empty")


def test_a_truncated_database(tmp_path: Path) -> None:
    path = fill(tmp_path, 200)
    os.truncate(path, path.stat().st_size - 5000)
    assert refusal(tmp_path).message.endswith("it is damaged: 5000 bytes are missing")


def test_a_damaged_page(tmp_path: Path) -> None:
    path = fill(tmp_path, 200)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 4096)
    error = refusal(tmp_path)
    assert ": it is damaged" in error.message
    assert "does not replace it" in error.hint


def test_damage_in_a_large_database_is_found_when_it_is_read(tmp_path: Path) -> None:
    """Checking every page of a large one would cost more than the restart may."""
    path = fill(tmp_path, 2500, b"x" * 3500)
    assert path.stat().st_size > CHECKED_SIZE
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs'").fetchone()
    with open(path, "r+b") as file:
        file.seek((root - 1) * PAGE_SIZE)
        file.write(b"\xff" * PAGE_SIZE)
    damaged = pytest.raises(GpudError, match=r"cannot read .*gpud\.db: it is damaged")
    with closing(SqliteStore.open(tmp_path)) as store, damaged:
        store.load()


def test_a_journal_without_its_database(tmp_path: Path) -> None:
    (tmp_path / "gpud.db-wal").write_bytes(b"x")
    with pytest.raises(GpudError, match=r"it is gone, but gpud\.db-wal is still there"):
        SqliteStore.open(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "reserve") == ["gpud.db-wal"]


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "gpud.db").mkdir()
    with pytest.raises(GpudError, match=r"cannot open .*gpud\.db: is a directory"):
        SqliteStore.open(tmp_path)


@contextmanager
def as_somebody() -> Iterator[None]:
    """Root may do everything: for a while we are nobody."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_database_that_may_not_be_read(public: Path) -> None:
    path = fill(public, 1)
    path.chmod(0)
    with as_somebody(), pytest.raises(GpudError) as caught:
        SqliteStore.open(public)
    assert caught.value.message == f"cannot open {path}: permission denied"
    assert caught.value.kind == "storage"


def test_a_database_that_may_not_be_written(public: Path) -> None:
    path = fill(public, 1)
    path.chmod(0o444)
    public.chmod(0o555)
    with as_somebody(), pytest.raises(GpudError) as caught:
        SqliteStore.open(public)
    public.chmod(0o755)
    assert caught.value.message == f"cannot open {path}: it is read-only"


def test_a_directory_that_may_not_be_written(public: Path) -> None:
    public.chmod(0o555)
    with as_somebody(), pytest.raises(GpudError) as caught:
        SqliteStore.open(public)
    public.chmod(0o755)
    assert caught.value.message == f"cannot open {public / 'gpud.db'}: permission denied"
    assert not list(public.iterdir())


@pytest.mark.parametrize(
    ("sqlite", "kernel", "message"),
    [
        ((3, 33, 0), "6.1", "cannot start: gpud needs SQLite 3.34 or newer"),
        ((3, 40, 1), "5.3.0-generic", "cannot start: gpud needs Linux 5.4 or newer"),
        ((3, 40, 1), "4.18.0-553.el8", "the one running is 4.18.0-553.el8"),
    ],
)
def test_too_old(sqlite: tuple[int, ...], kernel: str, message: str) -> None:
    with pytest.raises(GpudError) as caught:
        check_minimums(sqlite, kernel)
    assert message in caught.value.message


def test_new_enough() -> None:
    check_minimums((3, 34, 0), "5.4.0")
    check_minimums((4, 0, 0), "6.18.44-custom")
    check_minimums((3, 34, 0), "unheard-of")
    check_minimums()


# -- what is made ------------------------------------------------------------------------------


def test_the_database_is_its_owners_alone(tmp_path: Path) -> None:
    with closing(SqliteStore.open(tmp_path)):
        for name in ("gpud.db", "gpud.db-wal", "reserve"):
            path = tmp_path / name
            assert path.stat().st_mode & 0o777 == 0o600, name


def test_header_and_pragmas(tmp_path: Path) -> None:
    for durable, synchronous in ((True, 2), (False, 1)):
        with closing(connect(tmp_path / "x", durable=durable, migrations=MIGRATIONS)) as db:
            pragmas = {
                name: db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version", "journal_mode", "synchronous")
            }
            assert pragmas == {
                "application_id": APPLICATION_ID,
                "user_version": len(MIGRATIONS),
                "journal_mode": "wal",
                "synchronous": synchronous,
            }


CREATE = """
import os, sys
from pathlib import Path
from gpud.store.sqlite import SqliteStore

# Dies at the n-th system call that Python audits while the database is made.
left = int(sys.argv[2])
def hook(event, args):
    global left
    if event.startswith(("os.", "open", "sqlite3.")):
        left -= 1
        if left < 0:
            os._exit(9)
sys.addaudithook(hook)
SqliteStore.open(Path(sys.argv[1])).close()
os._exit(0)
"""


@pytest.mark.slow
def test_a_crash_while_it_is_made_leaves_nothing_or_a_database(tmp_path: Path) -> None:
    for step in range(1000):
        directory = tmp_path / str(step)
        directory.mkdir()
        died = subprocess.run([sys.executable, "-c", CREATE, directory, str(step)], check=False)
        assert died.returncode in (0, 9)
        with closing(SqliteStore.open(directory)) as store:
            assert store.load().next_id == 1
        if died.returncode == 0:
            assert step > 5
            return
    raise AssertionError("the hook never let it finish")


# -- migrations --------------------------------------------------------------------------------

OLD = ("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1);",)
NEW = (*OLD, "ALTER TABLE t ADD COLUMN y INTEGER; UPDATE t SET y = x + 1;")
NEWER = (*NEW, "UPDATE t SET y = y * 10;")


def rows(db: sqlite3.Connection) -> list[tuple[int, ...]]:
    return db.execute("SELECT * FROM t").fetchall()


def test_an_older_database_is_migrated_and_a_copy_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "gpud.db"
    connect(path, durable=True, migrations=OLD).close()
    with closing(connect(path, durable=True, migrations=NEWER)) as db:
        assert rows(db) == [(1, 20)]
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
    with closing(sqlite3.connect(tmp_path / "gpud.db.v1")) as copy:
        assert rows(copy) == [(1,)]
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    assert (tmp_path / "gpud.db.v1").stat().st_mode & 0o777 == 0o600


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gpud.db"
    connect(path, durable=True, migrations=OLD).close()
    broken = (*NEW, "UPDATE t SET y = 0; INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        connect(path, durable=True, migrations=broken)
    with closing(connect(path, durable=True, migrations=NEWER)) as db:
        assert rows(db) == [(1, 20)]


def test_an_up_to_date_database_is_not_copied(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    SqliteStore.open(tmp_path).close()
    assert not list(tmp_path.glob("*.v*"))


def test_the_version_in_the_header_is_where_it_is_looked_for(tmp_path: Path) -> None:
    header = fill(tmp_path, 1).read_bytes()[:100]
    assert struct.unpack(">I", header[60:64]) == (len(MIGRATIONS),)
    assert struct.unpack(">I", header[68:72]) == (APPLICATION_ID,)
