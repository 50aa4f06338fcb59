"""Decisions about a changed file, and what file system it is on."""

from __future__ import annotations

import pytest
from msgspec import structs

from gpud.core.entries import entry_digest
from gpud.errors import GpudError
from gpud.sources.tracker import (
    Matcher,
    Position,
    begin,
    decide,
    pack_skipped,
    parse_position,
)

READ = Position(generation=3, base=2, offset=100, line=9, digest="d", boot="b")


def test_a_position_survives_the_store() -> None:
    for position in (READ, Position(), structs.replace(READ, skipped=pack_skipped([b"12345678"]))):
        assert parse_position(position.cursor("q").position) == position
    with pytest.raises(GpudError, match="cannot read the stored position"):
        parse_position("{nonsense")


def test_where_reading_begins() -> None:
    first = Position(boot="b", path="/q")
    assert begin(None, "/q", "b") == (None, first)
    here = structs.replace(READ, path="/q")
    assert begin(READ, "/q", "b") == (here, first)
    assert begin(here, "/q", "b") == (here, first)
    assert begin(here, "/q2", "b") == (None, Position(generation=4, base=4, boot="b", path="/q2"))
    odd = begin(None, "/\udcff", "b")[1]
    assert parse_position(odd.cursor("q").position) == odd
    for size, boot in ((0, "b"), (50, "b"), (50, "another")):
        assert decide(here, size, boot).position.path == "/q"


def test_decisions() -> None:
    emptied = decide(READ, 0, "b").position
    assert (emptied.generation, emptied.base, emptied.offset, emptied.match_until) == (4, 4, 0, 0)
    away = decide(structs.replace(READ, away=True), 50, "b").position
    assert (away.generation, away.base, away.away, away.match_until) == (4, 4, False, 0)
    for size in (50, 150):
        replaced = decide(READ, size, "b").position
        assert (replaced.generation, replaced.base, replaced.match_until) == (4, 2, size)
    for size in (0, 50):
        lost = decide(READ, size, "another").position
        assert (lost.generation, lost.base, lost.match_until, lost.boot) == (4, 2, 100, "another")
    assert decide(READ, 150, "another").position.match_until == 150
    many = decide(structs.replace(READ, skipped_many=True), 50, "b")
    assert many.at_end


def test_the_kth_copy_is_new_when_fewer_were_taken() -> None:
    matcher = Matcher(
        {entry_digest(b"a"): 2, entry_digest(b"b"): 1},
        pack_skipped([entry_digest(b"b"), entry_digest(b"c")]),
    )
    met = [
        matcher.was_taken(command) for command in (b"a", b"b", b"a", b"a", b"b", b"b", b"c", b"d")
    ]
    assert met == [True, True, True, False, True, False, True, False]


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw shared:2 - nfs4 server:/home rw
31 30 8:2 / /home/me/local rw - xfs /dev/sdb1 rw
32 22 0:41 / /mnt/with\\040space rw - fuse.sshfs host: rw
33 22 0:42 / /mnt/over rw - tmpfs none rw
34 33 0:43 / /mnt/over rw - cifs //srv/x rw
nonsense
"""
