"""What a process wrote to a directory, and what of it a power cut may leave.

A small library (recorder.c) is preloaded into a real process and writes down each of its changes.
`Disk` plays the records again, as far as one likes, and says what is on the disk for certain, and
what may be there besides.

The model is that of a journaling file system: names change in order, and what has changed is on the
disk with the next sync of anything; data that was written since the last sync of its file may be
there or not, each sector by itself.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from msgspec import Struct

HEAD = struct.Struct("=cQQQ")
SECTOR = 512


class Record(Struct, frozen=True):
    """See recorder.c."""

    kind: str
    inode: int
    offset: int
    data: bytes

    @property
    def paths(self) -> list[Path]:
        return [Path(os.fsdecode(path)) for path in self.data.split(b"\0")]


@cache
def recorder() -> Path:
    """Skips the test where nothing can compile it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the recorder")
    directory = Path(tempfile.mkdtemp(prefix="recorder-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    source, library = Path(__file__).with_name("recorder.c"), directory / "recorder.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-lpthread", "-ldl"],
        check=True,
        timeout=60,
    )
    return library


def record(directory: Path, module: str, *arguments: str) -> list[Record]:
    """Run a module of ours, and what it changes in this directory, its first argument."""
    log = directory.with_name(directory.name + ".records")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder()),
        "RECORD_DIRECTORY": str(directory),
        "RECORD_LOG": str(log),
    }
    command = [sys.executable, "-m", module, str(directory), *arguments]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(_records(log.read_bytes()))


def _records(log: bytes) -> Iterator[Record]:
    at = 0
    while at < len(log):
        kind, inode, offset, length = HEAD.unpack_from(log, at)
        at += HEAD.size
        yield Record(kind.decode(), inode, offset, log[at : at + length])
        at += length


class Disk:
    """`stable` is there for certain; the records in `later` may be."""

    def __init__(self) -> None:
        self.names: dict[Path, int] = {}
        self.later_names: list[Record] = []
        self.stable: dict[int, bytearray] = {}
        self.later: dict[int, list[Record]] = {}

    def play(self, record: Record) -> None:
        match record.kind:
            case "c":
                if self._now().get(record.paths[0]) != record.inode:
                    self.later_names.append(record)
                    self.stable[record.inode], self.later[record.inode] = bytearray(), []
                if record.offset:
                    self.later[record.inode].append(Record("t", record.inode, 0, b""))
            case "r" | "u":
                self.later_names.append(record)
            case "w" | "t":
                self.later[record.inode].append(record)
            case "s":
                for change in self.later[record.inode]:
                    _change(self.stable[record.inode], change)
                self.later[record.inode].clear()
                self._settle_names()
            case "d":
                self._settle_names()

    def _now(self) -> dict[Path, int]:
        names = dict(self.names)
        for change in self.later_names:
            _rename(names, change)
        return names

    def _settle_names(self) -> None:
        self.names = self._now()
        self.later_names.clear()

    def leave(self, directory: Path, root: Path, dice: random.Random, kept: float) -> None:
        """A directory as it may be found after a power cut now. `kept`: how likely it is that a
        sector which was not synced is there."""
        names = dict(self.names)
        count = len(self.later_names)
        for change in self.later_names[: count if kept == 1 else dice.randint(0, count)]:
            _rename(names, change)
        for path, inode in names.items():
            content = bytearray(self.stable[inode])
            for change in self.later[inode]:
                for part in _sectors(change):
                    if dice.random() < kept:
                        _change(content, part)
            target = directory / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _sectors(change: Record) -> Sequence[Record]:
    if change.kind != "w":
        return (change,)
    found, at, end = [], change.offset, change.offset + len(change.data)
    while at < end:
        to = min(end, (at // SECTOR + 1) * SECTOR)
        data = change.data[at - change.offset : to - change.offset]
        found.append(Record("w", change.inode, at, data))
        at = to
    return found


def _change(content: bytearray, change: Record) -> None:
    size = len(content)
    if change.kind == "t":
        del content[change.offset :]
        content += bytes(max(0, change.offset - size))
        return
    content += bytes(max(0, change.offset - size))
    content[change.offset : change.offset + len(change.data)] = change.data


def _rename(names: dict[Path, int], change: Record) -> None:
    first, *rest = change.paths
    match change.kind:
        case "c":
            names[first] = change.inode
        case "r":
            names[rest[0]] = names.pop(first)
        case "u":
            names.pop(first, None)
