"""sqlite3's errors, sorted: what the disk does is expected, what we do wrong is a bug.

Owns which result codes of SQLite become a `StorageError` and the sentence for each. Called by
SqliteStore and store/database.py. Everything else (a constraint, a wrong statement) escapes.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

# Primary result codes (https://www.sqlite.org/rescode.html); extended ones have more bits.
BUSY, LOCKED, NOMEM, READONLY, IOERR, CORRUPT = 5, 6, 7, 8, 10, 11
FULL, CANTOPEN, PROTOCOL, PERM, AUTH, NOTADB = 13, 14, 15, 3, 23, 26

WHY = {
    FULL: "the disk is full",
    IOERR: "the disk reports an I/O error",
    READONLY: "it is read-only",
    BUSY: "another program has locked it",
    LOCKED: "another program has locked it",
    PROTOCOL: "another program has locked it",
    CANTOPEN: "it cannot be opened",
    NOMEM: "there is no memory left",
    PERM: "permission denied",
    AUTH: "permission denied",
    CORRUPT: "it is damaged",
    NOTADB: "it is damaged, or not a database",
}
VAGUE = (IOERR, CORRUPT, CANTOPEN)  # SQLITE_IOERR_FSYNC says more than the sentence
DAMAGED = (CORRUPT, NOTADB)


def code_of(error: sqlite3.Error) -> int:
    """The primary result code; 0 for errors of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def cannot(verb: str, path: Path, error: sqlite3.Error) -> str:
    """The sentence, or "" when this error is a bug."""
    why = WHY.get(code_of(error))
    if why is None:
        return ""
    exactly = f" ({error.sqlite_errorname})" if code_of(error) in VAGUE else ""
    return f"cannot {verb} {path}: {why}{exactly}"
