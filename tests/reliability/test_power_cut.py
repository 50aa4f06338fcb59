"""A power cut at any moment: the store opens, and nothing that was acknowledged is missing.

`GPUD_SEED` repeats a failure: the seed is printed. `GPUD_CUTS` sets how many moments are tried.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from gpud.store.sqlite import SqliteStore
from tests.reliability.life import ACKNOWLEDGED, digest, state_of
from tests.reliability.recording import Disk, Record, record

SEED = int(os.environ.get("GPUD_SEED", str(time.time_ns() % 1_000_000)))
CUTS = int(os.environ.get("GPUD_CUTS", "150"))
TURNS = 60


def told(records: list[Record], root: Path) -> list[tuple[int, str]]:
    """The digests that were acknowledged, each with the number of records by then."""
    (inode,) = {r.inode for r in records if r.kind == "c" and r.paths[0] == root / ACKNOWLEDGED}
    return [
        (at, entry.data.decode().strip())
        for at, entry in enumerate(records)
        if entry.kind == "w" and entry.inode == inode
    ]


def moments(records: list[Record], first: int, count: int, dice: random.Random) -> set[int]:
    """Before and after syncs, and others."""
    syncs = [at for at, entry in enumerate(records) if entry.kind in "sd" and at >= first]
    edges = {at + after for at in syncs for after in (0, 1)}
    chosen = set(dice.sample(sorted(edges), min(len(edges), count * 2 // 3)))
    return chosen | {dice.randrange(first, len(records)) for _ in range(count - len(chosen))}


@pytest.mark.slow
@pytest.mark.timeout(60 + CUTS)
@pytest.mark.parametrize("sync", ["full", "normal"])
def test_a_power_cut(tmp_path: Path, sync: str) -> None:
    """With FULL, what is found is the last that was acknowledged, or what was being written then.
    With NORMAL (`gpud run`), it is a state that there was, if perhaps an earlier one."""
    cut_often(tmp_path, sync, CUTS, all_is_kept=sync == "full")


@pytest.mark.slow
def test_what_is_not_synced_is_missed(tmp_path: Path) -> None:
    """That the cuts are real ones: NORMAL does not keep what FULL does."""
    with pytest.raises(AssertionError, match="not what was acknowledged"):
        cut_often(tmp_path, "normal", 30, all_is_kept=True)


def cut_often(place: Path, sync: str, cuts: int, *, all_is_kept: bool) -> None:
    print(f"GPUD_SEED={SEED}")
    dice = random.Random(SEED)
    root = place / "state"
    root.mkdir()
    records = record(root, "tests.reliability.life", str(SEED), str(TURNS), sync)
    acknowledged = told(records, root)
    states = [found for _, found in acknowledged]
    at_these = moments(records, acknowledged[0][0] + 1, cuts, dice)
    disk, known = Disk(), 0
    for at, entry in enumerate(records):
        if at in at_these:
            allowed = set(states[known - 1 if all_is_kept else 0 : known + 1])
            for kept in (0.0, dice.random(), 1.0):
                left = place / "left"
                left.mkdir()
                disk.leave(left, root, dice, kept)
                check(left, allowed, f"record {at} of {len(records)}, {kept:.2f} kept")
                shutil.rmtree(left)
        disk.play(entry)
        known += known < len(acknowledged) and acknowledged[known][0] == at


def check(left: Path, allowed: set[str], where: str) -> None:
    for name in (ACKNOWLEDGED, "gpud.db-shm"):  # the latter is memory
        (left / name).unlink(missing_ok=True)
    store = SqliteStore.open(left, durable=False)
    try:
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], where
        assert digest(store._db) in allowed, f"{where}: not what was acknowledged"
        state_of(store)
    finally:
        store.close()
