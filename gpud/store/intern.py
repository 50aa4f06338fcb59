"""What many jobs share, stored once: templates and environments.

Owns those two tables and the caches in front of them. Called by store/commit.py inside its
transaction and by the queries. Of the environments, which may hold secrets and are large, only the
one read last is kept in memory.

Rule 1: what `intern` learns in a transaction counts only after `kept`: until then its ids may be
rolled back, and then `forgotten` must be called.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from operator import attrgetter

from msgspec import structs

from gpud.core.model import JobSpec, Request, RetryPolicy
from gpud.core.rules import keys_of
from gpud.store.codec import Common, common_of, decode_common, encode

CACHED = 1024  # templates; the oldest goes first

# All that a template and its environment say, as a key: equal keys are equal rows.
shared_by = attrgetter("env", *Common.__struct_fields__)


class Interned:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._templates: dict[int, tuple[int, Common]] = {}  # id -> environment, content
        self._ids: dict[tuple[int, Common], int] = {}  # the reverse, of committed rows
        self._new: dict[tuple[int, Common], int] = {}  # of this transaction
        self._environment: tuple[int, bytes] | None = None
        self._new_environment: tuple[int, bytes] | None = None
        self._requests: dict[Request, Request] = {}
        self._retries: dict[RetryPolicy, RetryPolicy] = {}

    # -- writing ---------------------------------------------------------------------------

    def intern(self, spec: JobSpec) -> int:
        """The id of the template of this spec, made if there is none."""
        key = self._intern_environment(spec.env), common_of(spec)
        found = self._ids.get(key) or self._new.get(key)
        if found is not None:
            return found
        row = (key[0], encode(key[1]))
        known = self._db.execute(
            "SELECT id FROM templates WHERE environment = ? AND content = ?", row
        ).fetchone()
        if known is not None:
            found = int(known[0])
        else:
            insert = "INSERT INTO templates (environment, content) VALUES (?, ?)"
            found = _row_id(self._db.execute(insert, row))
            tags = [(tag, found) for tag in tags_of(key[1])]
            self._db.executemany("INSERT INTO tags (tag, template) VALUES (?, ?)", tags)
        self._new[key] = found
        return found

    def kept(self) -> None:
        """The transaction is committed."""
        for key, template in self._new.items():
            self._remember(template, key)
        self._new.clear()
        if self._new_environment is not None:
            self._environment, self._new_environment = self._new_environment, None

    def forgotten(self) -> None:
        """The transaction was rolled back."""
        self._new.clear()
        self._new_environment = None

    def clear(self) -> None:
        """Rows were deleted: what is remembered of them counts no more."""
        self._templates.clear()
        self._ids.clear()
        self._environment = None

    def _intern_environment(self, env: bytes) -> int:
        for last in (self._new_environment, self._environment):
            if last is not None and last[1] == env:
                return last[0]
        digest = blake2b(env, digest_size=32).digest()
        known = self._db.execute(
            "SELECT id FROM environments WHERE digest = ?", (digest,)
        ).fetchone()
        if known is not None:
            found = int(known[0])
        else:
            insert = "INSERT INTO environments (digest, content) VALUES (?, ?)"
            found = _row_id(self._db.execute(insert, (digest, env)))
        self._new_environment = found, env
        return found

    # -- reading ---------------------------------------------------------------------------

    def template(self, template: int) -> tuple[int, Common]:
        """The environment's id and the content."""
        found = self._templates.get(template)
        if found is None:
            environment, content = self._db.execute(
                "SELECT environment, content FROM templates WHERE id = ?", (template,)
            ).fetchone()
            found = self._remember(template, (environment, decode_common(content)))
        return found

    def environment(self, environment: int) -> bytes:
        last = self._environment
        if last is None or last[0] != environment:
            content: bytes
            (content,) = self._db.execute(
                "SELECT content FROM environments WHERE id = ?", (environment,)
            ).fetchone()
            last = self._environment = environment, content
        return last[1]

    def _remember(self, template: int, row: tuple[int, Common]) -> tuple[int, Common]:
        if len(self._templates) >= CACHED:
            oldest = next(iter(self._templates))
            del self._ids[self._templates.pop(oldest)]
        content = row[0], self._shared(row[1])
        self._templates[template] = content
        self._ids[content] = template
        return content

    def _shared(self, common: Common) -> Common:
        """The same with equal requests and policies being one object: jobs in memory share them."""
        if max(len(self._requests), len(self._retries)) > CACHED:
            self._requests.clear()
            self._retries.clear()
        request = self._requests.setdefault(common.request, common.request)
        retry = self._retries.setdefault(common.retry, common.retry)
        return structs.replace(common, request=request, retry=retry)


def tags_of(common: Common) -> tuple[str, ...]:
    """What jobs can be selected by that their template says."""
    return keys_of(common.group, common.uid, "", common.labels)


def _row_id(inserted: sqlite3.Cursor) -> int:
    assert inserted.lastrowid is not None
    return inserted.lastrowid
