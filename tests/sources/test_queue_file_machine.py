"""Appending, emptying, replacing, restarting and crashing in any order.

The model knows the rules of docs/queue-file.md and nothing of the code: after every step it says
exactly which commands are taken, in which order. A crash is a cancelled `take`, on either side of
its commit, at any boundary; batches are of two entries, so that there are many.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gpud.config.schema import JobDefaults, QueueFileSource
from gpud.sources import reader
from gpud.sources.queue_file import QueueFile
from gpud.sources.reader import Reader
from gpud.sources.settling import Timing
from gpud.sources.tracker import parse_position

from .fakes import FakeHost

COMMANDS = st.sampled_from([b"a", b"b", b"c", b"cat <<E\nx\nE", b"d \\\n  e", b"f # <<E", b"g\r"])
FILLERS = st.sampled_from([b"# no", b"", b"  \t"])
LINES = st.lists(st.one_of(COMMANDS, COMMANDS, FILLERS), max_size=6)
FATES = st.lists(st.sampled_from(["", "before", "after"]), max_size=5)


def commands_of(text: bytes) -> list[bytes]:
    """The commands of a text of complete lines from the lists above."""
    found: list[bytes] = []
    lines = [line.rstrip(b"\r") for line in text.split(b"\n")[:-1]]
    at = 0
    while at < len(lines):
        count = {b"cat <<E": 3, b"d \\": 2}.get(lines[at], 1)
        if at + count > len(lines):
            break  # not complete
        command = b"\n".join(lines[at : at + count])
        at += count
        if command.strip() and not command.startswith(b"#"):
            found.append(command)
    return found


class QueueFileMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="gpud-machine-"))
        self.path = self.directory / "q"
        self.loop = asyncio.new_event_loop()
        self.batch, reader.BATCH = reader.BATCH, 2
        self.host = FakeHost()
        self.reader: Reader | None = None
        self.text = b""
        self.read = b""  # what the file began with, up to where it was read
        self.taken: Counter[bytes] = Counter()  # since the file was last seen empty
        self.expected: list[bytes] = []

    def teardown(self) -> None:
        reader.BATCH = self.batch
        self.loop.close()
        shutil.rmtree(self.directory)

    @initialize(lines=LINES)
    def start(self, lines: list[bytes]) -> None:
        self.path.write_bytes(b"")
        self.append(lines)

    # -- what people do --------------------------------------------------------------------

    @rule(lines=LINES)
    def append(self, lines: list[bytes]) -> None:
        self._add(b"".join(line + b"\n" for line in lines))

    @rule(cut=st.integers(1, 5), line=COMMANDS)
    def append_in_two_pieces(self, cut: int, line: bytes) -> None:
        whole = line + b"\n"
        self._add(whole[:cut])
        self.look()
        self._add(whole[cut:])

    @rule()
    def empty(self) -> None:
        self.path.write_bytes(b"")
        self.text = b""

    @rule(data=st.data(), in_place=st.booleans())
    def edit(self, data: st.DataObject, in_place: bool) -> None:
        """Drop, double, move and add lines."""
        lines = self._whole_entries()
        kept = data.draw(st.lists(st.sampled_from(lines), max_size=8)) if lines else []
        added = data.draw(LINES)
        mixed = data.draw(st.permutations(kept + added))
        self._replace(b"".join(line + b"\n" for line in mixed), in_place)

    @rule(data=st.data(), in_place=st.booleans())
    def insert(self, data: st.DataObject, in_place: bool) -> None:
        lines = self._whole_entries()
        at = data.draw(st.integers(0, len(lines)))
        new = [*lines[:at], data.draw(COMMANDS), *lines[at:]]
        self._replace(b"".join(line + b"\n" for line in new), in_place)

    # -- what happens to gpud --------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.reader = None

    @rule(fates=FATES)
    def crash_soon(self, fates: list[str]) -> None:
        self.host.fates = fates

    @invariant()
    def look(self) -> None:
        """Let gpud come to rest, then compare."""
        self._expect()
        for _ in range(20):
            try:
                self.loop.run_until_complete(self._look())
                break
            except asyncio.CancelledError:
                self.reader = None
        assert self.host.commands() == self.expected
        if self.host.cursor is not None:
            self.read = self.text[: parse_position(self.host.cursor).offset]
            assert commands_of(self.text[len(self.read) :].rpartition(b"\n")[0] + b"\n") == []

    # -- the rest --------------------------------------------------------------------------

    async def _look(self) -> None:
        if self.reader is None:
            config = QueueFileSource(path=str(self.path))
            source = QueueFile(
                "q",
                config,
                JobDefaults(),
                boot_id="b",
                uid=0,
                base_dir=self.directory,
                environ={},
                timing=Timing(settle_s=0.0, away_s=0.0),
            )
            self.reader = await source.reader(self.host)
        await self.reader.look()

    def _expect(self) -> None:
        """The rules."""
        complete = self.text[: self.text.rfind(b"\n") + 1]
        if self.text.startswith(self.read):
            new = commands_of(complete[len(self.read) :])
        elif not self.text:
            self.taken.clear()
            new = []
        else:
            left, new = self.taken.copy(), []
            for command in commands_of(complete):
                if left[command] > 0:
                    left[command] -= 1
                else:
                    new.append(command)
        self.taken.update(new)
        self.expected += new
        self.read = complete if self.text.startswith(self.read) or new else self.read

    def _whole_entries(self) -> list[bytes]:
        complete = self.text[: self.text.rfind(b"\n") + 1]
        return commands_of(complete)

    def _add(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)
        self.text += data

    def _replace(self, text: bytes, in_place: bool) -> None:
        if in_place:
            with open(self.path, "r+b") as file:
                file.write(text)
                file.truncate()
        else:
            new = self.directory / "new"
            new.write_bytes(text)
            os.replace(new, self.path)
        self.text = text
        # A file system's clock may stand still for a few milliseconds: a change of the same
        # length within one tick is one of those that cannot be told apart.
        found = os.stat(self.path)
        self.tick = getattr(self, "tick", found.st_mtime_ns) + 1_000_000_000
        os.utime(self.path, ns=(found.st_atime_ns, self.tick))


TestQueueFileMachine = QueueFileMachine.TestCase
TestQueueFileMachine.settings = settings(max_examples=60, stateful_step_count=25)
