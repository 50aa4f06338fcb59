"""What to make of a file that is not what it was: the decisions, without the file. Pure.

Owns the position of a queue file (what is committed with its jobs) and four rules:
1. The taken beginning is still there: go on at the offset, whatever else happened (appended,
   copied, renamed, touched, away for a while).
2. The file was seen empty, or away and then with another beginning: a new generation. All of its
   lines are new.
3. Otherwise it was replaced or edited: a new generation whose lines, up to the size at that look,
   are matched as a multiset with all that was taken since rule 2 last held (`base`): the k-th copy
   of a line is new only if fewer than k were taken. What is appended after that look is new. A
   file that is shorter under another boot id is no truncation, not even at size 0: it lost its
   tail in a crash, and what is written up to the old offset is matched too.
4. Another path in the configuration is another file, whatever is in it: a new generation, as at a
   first sight. Only a position of before paths were kept belongs to whatever file there is.

The multiset is not in the position: the store has every command that was taken, and what was
matched so far can be counted again from the file, so a position is a few hundred bytes however
long the file is. Only lines that `start = "end"` skipped are in no store: eight bytes of digest
for each of them are kept, for up to `MAX_SKIPPED` of them; beyond that, a replaced file counts as
seen for the first time.

What cannot be told apart: a file changed twice between two looks; a beginning that was edited in
place without changing its length nor the last 4 KiB before what is read next, until the next full
comparison (reader.py says when); two commands that are equal but for their options.

Called by the queue file's reader. It must not read the file: it is told.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct, structs

from gpud.core.entries import DIGEST_SIZE, entry_digest
from gpud.core.model import Cursor
from gpud.errors import GpudError

MAX_SKIPPED = 2000


class Position(Struct, frozen=True, omit_defaults=True):
    """How far a file has been read. Every field is about what is committed."""

    generation: int = 1  # counts up at each truncation or replacement; in every entry key
    base: int = 1  # since this generation, what was taken is taken
    offset: int = 0
    line: int = 1
    in_line: bool = False  # `offset` is within an overlong line
    digest: str = ""  # of the bytes before `offset`, `new_digest`
    match_until: int = 0  # below this offset, lines are matched with what was taken
    boot: str = ""
    away: bool = False  # the file was seen missing from a directory that was there
    skipped: str = ""  # base64: keys of the lines that `start = "end"` skipped
    skipped_many: bool = False  # there were more of them than are kept
    path: str = ""  # of the file; "" in positions of before this was kept

    def cursor(self, source: str) -> Cursor:
        return Cursor(source, msgspec.json.encode(self).decode())

    def key(self, offset: int) -> str:
        return f"{self.generation}:{offset}"


def parse_position(text: str) -> Position:
    try:
        return msgspec.json.decode(text, type=Position)
    except msgspec.MsgspecError as error:
        raise GpudError(f"cannot read the stored position: {error}", kind="storage") from error


def begin(known: Position | None, path: str, boot: str) -> tuple[Position | None, Position]:
    """The position as it counts for the file at `path`, None at its first sight; and where reading
    begins then."""
    here = os.fsencode(path).decode("utf-8", "backslashreplace")
    if known is not None and known.path not in ("", here):
        generation = known.generation + 1
        return None, Position(generation=generation, base=generation, boot=boot, path=here)
    first = Position(boot=boot, path=here)
    return (None if known is None else structs.replace(known, path=here)), first


def new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


class Decision(Struct, frozen=True):
    """`position`: where to read on. `note`: why; its numbers are filled in as they grow."""

    position: Position
    note: str
    at_end: bool = False  # as at a first sight with `start = "end"`


def decide(position: Position, size: int, boot: str) -> Decision:
    """The file has `size` bytes, and its beginning is not the one that was taken."""
    fresh = Position(
        generation=position.generation + 1,
        base=position.generation + 1,
        boot=boot,
        path=position.path,
    )
    if size < position.offset and position.boot != boot:
        until = max(position.offset, position.match_until)
        back = structs.replace(_matched(position, boot), match_until=until)
        return Decision(
            back,
            f"the file has {size} bytes and had {position.offset} before the machine was started "
            "again: read again from its beginning; {new_lines} taken, {old} had been taken before",
        )
    if size == 0:
        return Decision(fresh, "the file was emptied: what is written now is new")
    if position.away:
        return Decision(fresh, "the file was away and is another one now: all of its lines are new")
    if position.skipped_many:
        return Decision(fresh, "the file was replaced: {old_lines} skipped", at_end=True)
    how = "is shorter" if size < position.offset else "was replaced or edited"
    return Decision(
        structs.replace(_matched(position, boot), match_until=size),
        f"the file {how}: {{new_lines}} taken, {{old}} had been taken before",
    )


def filled_in(note: str, new: int, old: int) -> str:
    """A note with its numbers: {old}; {new_lines}, {old_lines}: "7 lines"; {new_jobs}, {old_jobs}:
    "the 7 jobs"."""
    return note.format(
        old=old,
        new_lines=_lines(new),
        old_lines=_lines(old),
        new_jobs=_jobs(new),
        old_jobs=_jobs(old),
    )


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _jobs(count: int) -> str:
    return {0: "no job", 1: "the one job"}.get(count, f"the {count} jobs")


def _matched(position: Position, boot: str) -> Position:
    return Position(
        generation=position.generation + 1,
        base=position.base,
        boot=boot,
        skipped=position.skipped,
        path=position.path,
    )


class Matcher:
    """The multiset of what was taken and not yet met again."""

    def __init__(self, taken: Mapping[bytes, int], skipped: str = "") -> None:
        """`taken`: by the digests of commands."""
        self._left: Counter[bytes] = Counter(taken)
        self._left.update(_unpack(skipped))

    def was_taken(self, command: bytes) -> bool:
        """Call once for each entry, in order."""
        key = entry_digest(command)
        left = self._left.get(key, 0)
        if left <= 0:
            return False
        self._left[key] = left - 1
        return True


def pack_skipped(keys: Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(keys)).decode("ascii")


def _unpack(skipped: str) -> list[bytes]:
    raw = base64.b64decode(skipped)
    return [raw[at : at + DIGEST_SIZE] for at in range(0, len(raw), DIGEST_SIZE)]
