"""Damaged state: it is refused in one sentence and not touched, or it opens and holds together.

`GPUD_SEED` repeats a failure: the seed is printed. `GPUD_DAMAGES` sets how many there are.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from gpud.errors import GpudError
from gpud.protocol.selectors import parse
from gpud.store.sqlite import SqliteStore
from tests.reliability.life import Life, state_of

SEED = int(os.environ.get("GPUD_SEED", str(time.time_ns() % 1_000_000)))
DAMAGES = int(os.environ.get("GPUD_DAMAGES", "120"))
DATABASE, LOG = "gpud.db", "gpud.db-wal"


def damage(path: Path, dice: random.Random) -> str:
    """A flipped bit, a missing end, a sector of zeros, or a few bytes of something else."""
    content = bytearray(path.read_bytes())
    at = dice.randrange(len(content) if dice.random() < 0.8 else 200)
    match dice.randrange(4):
        case 0:
            content[at] ^= 1 << dice.randrange(8)
        case 1:
            del content[at:]
        case 2:
            content[at : at + 512] = bytes(len(content[at : at + 512]))
        case _:
            content[at : at + 64] = dice.randbytes(len(content[at : at + 64]))
    path.write_bytes(content)
    return f"{path.name}, byte {at}"


def read_all(directory: Path) -> None:
    store = SqliteStore.open(directory, durable=False)
    try:
        state = state_of(store)
        ids = store.select(parse(["all"]))
        store.views(ids)
        store.details(ids)
        for job in state.jobs:
            if job > 0:
                store.spec(job)
    finally:
        store.close()


def refusal(directory: Path, where: str) -> GpudError | None:
    try:
        read_all(directory)
    except GpudError as error:
        return error
    except Exception as error:
        raise AssertionError(f"GPUD_SEED={SEED}, {where}") from error
    return None


@pytest.mark.slow
def test_damaged_state_is_refused_in_words_or_holds_together(tmp_path: Path) -> None:
    print(f"GPUD_SEED={SEED}")
    dice = random.Random(SEED)
    lived = tmp_path / "lived"
    lived.mkdir()
    life = Life(lived, SEED, durable=False)
    for _ in range(60):
        dice.choice((life.submit, life.read_lines, life.end, life.end, life.ask))()
    whole = tmp_path / "whole"
    shutil.copytree(lived, whole)  # as a kill leaves it: with a log that is not copied yet
    life.store.close()
    refused = 0
    for _ in range(DAMAGES):
        directory = tmp_path / "damaged"
        shutil.copytree(whole, directory)
        (directory / "gpud.db-shm").unlink()
        name = dice.choice((DATABASE, DATABASE, LOG))
        where = damage(directory / name, dice)
        evidence = (directory / name).read_bytes()
        why = refusal(directory, where)
        if why is not None:
            refused += 1
            assert str(directory / DATABASE) in why.message, where
            assert why.hint, where
            assert (directory / name).read_bytes() == evidence, where
        shutil.rmtree(directory)
    assert 0 < refused < DAMAGES
