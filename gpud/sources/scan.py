"""Reading a queue file on from a position: bytes to entries, and what must be known to go on later.

Owns, between two looks, what was read and not yet taken: the lexer, the digest of what it consumed,
and the window that an append is recognised by. Made by reader.py, anew wherever reading begins
again; its methods block, and are called inline or aside, one at a time. It must not take entries
nor decide what a change of the file means.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from gpud.core.entries import entry_digest
from gpud.sources import file_sight
from gpud.sources.file_sight import CHUNK, WINDOW, Prefix, Sight
from gpud.sources.lexer import Entry, Lexer, Limits
from gpud.sources.tracker import Matcher, Position, new_digest


class Scan:
    def __init__(
        self,
        position: Position,
        limits: Limits,
        before: Prefix | None = None,
    ) -> None:
        """`before`: of the bytes before the position; None: there are none."""
        self._digest, self.window = before or (
            new_digest(),
            b"",
        )  # window: what is before `read_to`
        self._lexer = Lexer(
            position.offset,
            position.line,
            in_line=position.in_line,
            consumed=self._digest.update,
            limits=limits,
        )
        self.read_to = position.offset
        self.short = False  # the file became shorter while it was read

    @property
    def offset(self) -> int:
        """Only complete entries that were given out lie before it."""
        return self._lexer.offset

    @property
    def deadline(self) -> float | None:
        return self._lexer.deadline

    def moved(self, position: Position) -> Position:
        """The position as far as it has been read."""
        lexer = self._lexer
        return structs.replace(
            position,
            offset=lexer.offset,
            line=lexer.line,
            in_line=lexer.in_line,
            digest=self._digest.hexdigest(),
        )

    def entries(self, sight: Sight, limit: int, now: float) -> tuple[list[Entry], bool]:
        """At most `limit` entries, perhaps none yet, and whether more may come in this look."""
        found = self._lexer.entries(limit, now)
        return found, len(found) == limit or self._feed(sight, now)

    def _feed(self, sight: Sight, now: float) -> bool:
        data = file_sight.read_at(sight, self.read_to, sight.stamp.size)
        if not data:
            self.short = self.short or self.read_to < sight.stamp.size
            return False
        self.read_to += len(data)
        self.window = (self.window + data)[-WINDOW:]
        self._lexer.feed(data, now)
        return True


def keys_of(scan: Scan, sight: Sight, limit: int, now: float) -> tuple[list[bytes], bool]:
    """Entries that are passed over: what recognises their commands, and whether more may come."""
    found, more = scan.entries(sight, limit, now)
    return [entry_digest(entry.command) for entry in found], more


def matcher_at(
    position: Position, taken: Mapping[bytes, int], sight: Sight, limits: Limits
) -> Matcher:
    """The multiset, less what was met before `position`: those lines are read once more."""
    matcher = Matcher(taken, position.skipped)
    lexer, at = Lexer(limits=limits), 0
    while at < position.offset:
        data = file_sight.read_at(sight, at, position.offset)
        if not data:
            break
        at += len(data)
        lexer.feed(data, 0.0)
        for entry in lexer.entries(CHUNK, 0.0):
            matcher.was_taken(entry.command)
    # What was given up when it was read is given up here too: nothing more will come.
    for entry in lexer.entries(CHUNK, limits.patience_s):
        matcher.was_taken(entry.command)
    return matcher
