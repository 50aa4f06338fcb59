"""Opening the database file: made whole or not at all, refused when it is not ours, migrated.

Owns everything between a path and a connection that fits this program. Called by SqliteStore.open,
with the lock of the state directory held. A file that is refused is not written to, and no refusal
ever leads to an empty database in its place.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import quote

from gpud.errors import GpudError, why_os
from gpud.store.schema import APPLICATION_ID
from gpud.store.trouble import DAMAGED, cannot, code_of

MAGIC = b"SQLite format 3\0"
HEADER_SIZE = 100  # https://www.sqlite.org/fileformat.html#the_database_header
CHECKED_SIZE = 8 << 20  # up to here every page is checked at open: some 20 ms at most
CACHE_KIB = 2048
BUSY_TIMEOUT_S = 0.2  # for a person's sqlite3 shell; the loop waits
PAGE_SIZE = 2048  # of a new one: a commit of a few rows writes 40 % less than with 4096
CHECKPOINT_BYTES = 16 << 20  # most pages are written again within that, and copied only once
KEPT_JOURNAL = 16 << 20  # a write-ahead log that one large commit made grow is cut down to this

HINT_GONE = "put it back, or move the whole state directory away to start with an empty queue"
HINT_DAMAGED = (
    "gpud does not replace it: put a copy back, or move the whole state directory away to start "
    "with an empty one"
)


def connect(path: Path, *, durable: bool, migrations: Sequence[str]) -> sqlite3.Connection:
    """A connection to the database at `path`, of this program's version, made if there is none.

    Raises GpudError (storage).
    """
    try:
        if not os.path.lexists(path):
            _create(path, migrations, durable=durable)
        _inspect(path, len(migrations))
        _check(path, len(migrations))
        db = _attach(path, durable=durable)
    except sqlite3.Error as error:
        raise _refusal(path, error) from error
    except UnicodeDecodeError as error:  # SQLite quotes the schema that it cannot read
        raise _refused(path, "it is damaged (its schema is not text)", HINT_DAMAGED) from error
    except OSError as error:
        raise _refused(path, why_os(error)) from error
    try:
        _migrate(db, path, migrations)
        db.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        db.close()
        raise _refusal(path, error) from error
    except BaseException:
        db.close()
        raise
    return db


def connect_in_memory(migrations: Sequence[str]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _run(db, migrations, 0)
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _refused(path: Path, why: str, hint: str = "") -> GpudError:
    return GpudError(f"cannot open {path}: {why}", kind="storage", hint=hint)


def _refusal(path: Path, error: sqlite3.Error) -> GpudError:
    """The refusal for an error of SQLite; an error that is a bug is raised."""
    message = cannot("open", path, error)
    if not message:
        raise error
    hint = HINT_DAMAGED if code_of(error) in DAMAGED else ""
    return GpudError(message, kind="storage", hint=hint)


# -- a new one -----------------------------------------------------------------------------


def _create(path: Path, migrations: Sequence[str], *, durable: bool) -> None:
    """Under another name, renamed when complete: a crash leaves nothing or a valid database."""
    journal = path.with_name(path.name + "-wal")
    if os.path.lexists(journal) and os.path.getsize(journal):
        # SQLite would replay it into whatever database gets this name.
        raise _refused(path, f"it is gone, but {journal.name} is still there", HINT_DAMAGED)
    for runners in path.parent.glob("runner-*.journal"):
        if runners.stat().st_size:
            # Its attempts have ids that a new database would give out again.
            raise _refused(path, f"it is gone, but {runners.name} is still there", HINT_GONE)
    draft = path.with_name(path.name + ".new")
    for leftover in (draft, draft.with_name(draft.name + "-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(draft, isolation_level=None)
    try:
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        db.execute("PRAGMA synchronous = OFF")  # once, when it is whole
        _run(db, migrations, 0)
        db.execute("PRAGMA journal_mode = WAL")  # stays in the header
    finally:
        db.close()
    _sync(draft)
    os.rename(draft, path)
    if durable:
        _sync(path.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- an old one ----------------------------------------------------------------------------


def _inspect(path: Path, known: int) -> None:
    """Refuses by the header alone, before SQLite may touch the file."""
    with open(path, "rb") as file:
        header = file.read(HEADER_SIZE)
        size = os.fstat(file.fileno()).st_size
    if not size:
        raise _refused(path, "it is empty", HINT_DAMAGED)
    if len(header) < HEADER_SIZE or not header.startswith(MAGIC):
        raise _refused(path, "it is damaged, or not a database", HINT_DAMAGED)
    application_id = int.from_bytes(header[68:72], "big")
    if application_id != APPLICATION_ID:
        raise _refused(
            path,
            f"it is the database of another program (application id {application_id:#x})",
            "set another state_dir",
        )
    _check_version(path, int.from_bytes(header[60:64], "big"), known)
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    expected = pages * (65536 if page_size == 1 else page_size)
    journal = path.with_name(path.name + "-wal")
    # With a journal the missing pages may be in there: a checkpoint was interrupted.
    if size < expected and not (os.path.exists(journal) and os.path.getsize(journal)):
        raise _refused(path, f"it is damaged: {expected - size} bytes are missing", HINT_DAMAGED)


def _check_version(path: Path, version: int, known: int) -> None:
    if version > known:
        raise _refused(
            path,
            f"it was written by a newer gpud (schema {version}, this one knows {known})",
            "start the newer gpud, or set another state_dir",
        )


def _attach(path: Path, *, durable: bool) -> sqlite3.Connection:
    db = sqlite3.connect(
        _uri(path, "rw"),
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,
    )
    try:
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA mmap_size = 0")
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // page_size}")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute(f"PRAGMA journal_size_limit = {KEPT_JOURNAL}")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise _refused(path, "this file system does not support a write-ahead log")
    except BaseException:
        db.close()
        raise
    return db


def _check(path: Path, known: int) -> None:
    """Read with its journal, and not written: who may write copies the journal when it closes, and
    what was damaged would be another then."""
    db = sqlite3.connect(_uri(path, "ro"), uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        _check_version(path, db.execute("PRAGMA user_version").fetchone()[0], known)
        verdict = _misspelt(db)
        if not verdict and os.path.getsize(path) <= CHECKED_SIZE:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    finally:
        db.close()
    if verdict not in ("", "ok"):
        raise _refused(path, f"it is damaged ({' '.join(verdict.split())})", HINT_DAMAGED)


def _misspelt(db: sqlite3.Connection) -> str:
    """What is wrong with the text of the schema: who only reads takes constraints as they are."""
    db.text_factory = partial(str, encoding="utf-8", errors="replace")
    schema = db.execute("SELECT sql FROM sqlite_master WHERE sql <> ''").fetchall()
    with closing(sqlite3.connect(":memory:")) as empty:
        try:
            for (statement,) in schema:
                empty.execute(statement)
        except (sqlite3.Error, ValueError) as error:  # the latter: a NUL
            return str(error)
    return ""


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(os.fsencode(path))}?mode={mode}"


# -- migrations ----------------------------------------------------------------------------


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == len(migrations):
        return
    _back_up(db, path, version)
    _run(db, migrations, version)


def _back_up(db: sqlite3.Connection, path: Path, version: int) -> None:
    """A whole copy beside the database, for the way back to the older program."""
    copy = path.with_name(f"{path.name}.v{version}")
    draft = copy.with_name(copy.name + ".new")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    target = sqlite3.connect(draft)
    try:
        db.backup(target)
    finally:
        target.close()
    os.rename(draft, copy)
    _sync(path.parent)


def _run(db: sqlite3.Connection, migrations: Sequence[str], version: int) -> None:
    """Each migration from `version` on is a transaction of its own."""
    for number, script in enumerate(migrations[version:], version + 1):
        try:
            db.executescript(
                f"BEGIN IMMEDIATE;{script};PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {number};COMMIT;"
            )
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
