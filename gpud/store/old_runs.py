"""Directories of `gpud run` (`runs/` in the state directory) that are over for long.

Called by the daemon's housekeeping, in a thread. A run goes as a whole, and only when all of its
jobs are done, no gpud and no runner has it, and the last job ended long enough ago; one that cannot
be looked into stays. It is renamed first: what a crash leaves has a name that the next pass knows.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from gpud.errors import why_os
from gpud.locks import is_held
from gpud.store.schema import APPLICATION_ID
from gpud.store.statedir import LOCK

RUNS = "runs"
DATABASE = "gpud.db"
GOING = ".going"  # after the name of a run that is being removed


def prune_runs(
    state_dir: Path, longest_ms: int, now_ms: int, *, really: bool
) -> tuple[list[str], str]:
    """Names of those that went, or would; and what is wrong with one of them, as a sentence."""
    gone, problem = [], ""
    try:
        names = sorted(os.listdir(state_dir / RUNS))
    except OSError:
        return [], ""  # there are none
    for name in names:
        path = state_dir / RUNS / name
        try:
            if name.endswith(GOING):
                if really:
                    shutil.rmtree(path)
            else:
                with _locked(path) as ours:
                    if ours and now_ms - _over_at_ms(path, now_ms) > longest_ms:
                        if really:
                            going = path.rename(path.with_name(name + GOING))
                            shutil.rmtree(going)
                        gone.append(name)
        except OSError as error:
            problem = f"cannot remove {path}: {why_os(error)}"
    return gone, problem


def _over_at_ms(path: Path, now_ms: int) -> int:
    """When its last job ended; now, while it is not over or nobody can say."""
    if any(is_held(lock) for lock in path.glob("runner-*.lock")):
        return now_ms
    try:
        file = f"file:{quote(os.fsencode(path / DATABASE))}?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=0)) as db:
            if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
                return now_ms
            if _has_open_jobs(db):
                return now_ms
            (last,) = db.execute("SELECT max(ended_at_ms) FROM jobs").fetchone()
    except sqlite3.Error:
        return now_ms
    return int(last) if last else int(os.stat(path / DATABASE).st_mtime * 1000)


def _has_open_jobs(db: sqlite3.Connection) -> bool:
    if db.execute("SELECT 1 FROM jobs WHERE state <> 'done' LIMIT 1").fetchone():
        return True
    has_arrays = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'arrays'").fetchone()
    return bool(
        has_arrays and db.execute("SELECT 1 FROM arrays WHERE NOT whole LIMIT 1").fetchone()
    )


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether it was nobody's, and is ours now: no `gpud run --resume` comes in between."""
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)
