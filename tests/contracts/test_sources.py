"""What `ports.Source` promises, for every source whose entries are lines.

Each source gets a *feed*: how lines come in, and how another run of the source begins (another
process for what keeps a cursor, the same object for standard input).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from gpud.config.schema import JobDefaults, QueueFileSource
from gpud.ports import Source
from gpud.sources.queue_file import QueueFile
from gpud.sources.stdin import Stdin
from tests.sources.fakes import FakeHost, running, turns_of_the_loop


class Feed(Protocol):
    def source(self) -> Source: ...

    def write(self, data: bytes) -> None: ...


class FileFeed:
    def __init__(self, directory: Path, watch: bool) -> None:
        self.path = directory / "q"
        self.watch = watch

    def source(self) -> Source:
        config = QueueFileSource(path=str(self.path), poll_s=0.02)
        return QueueFile(
            "s",
            config,
            JobDefaults(),
            boot_id="b",
            uid=0,
            base_dir=self.path.parent,
            watch=self.watch,
        )

    def write(self, data: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(data)

    def close(self) -> None:
        pass


class PipeFeed:
    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self.only = Stdin(self.out, JobDefaults(), cwd=b"/", env=b"", uid=0, name="s")
        self.pending = b""

    def source(self) -> Source:
        return self.only

    def write(self, data: bytes) -> None:
        os.set_blocking(self.into, False)
        self.pending += data
        self.push()

    def push(self) -> None:
        while self.pending:
            try:
                self.pending = self.pending[os.write(self.into, self.pending) :]
            except BlockingIOError:
                asyncio.get_running_loop().call_later(0.001, self.push)
                return

    def close(self) -> None:
        os.close(self.into)
        os.close(self.out)


@pytest.fixture(params=["queue-file", "queue-file, watched", "stdin"])
def feed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Feed]:
    watch = request.param.endswith("watched")
    made = PipeFeed() if request.param == "stdin" else FileFeed(tmp_path, watch)
    yield made
    made.close()


def test_it_is_a_source(feed: Feed) -> None:
    assert feed.source().name == "s"
    assert feed.source().kind in ("queue-file", "stdin")


def test_entries_are_taken_in_order(feed: Feed) -> None:
    async def main() -> None:
        host = FakeHost()
        wanted = [b"run %d" % index for index in range(2000)]
        feed.write(b"".join(command + b"\n" for command in wanted[:1000]))
        async with running(feed.source(), host):
            await host.until(lambda: len(host.jobs) == 1000)
            feed.write(b"".join(command + b"\n" for command in wanted[1000:]))
            await host.until(lambda: len(host.jobs) == 2000)
        assert host.commands() == wanted
        assert len({job.spec.entry_key for job in host.jobs}) == 2000
        assert {job.spec.source for job in host.jobs} == {"s"}

    asyncio.run(main())


def test_a_cancel_before_a_commit_loses_nothing(feed: Feed) -> None:
    async def main() -> None:
        host = FakeHost()
        wanted = [b"run %d" % index for index in range(40)]
        for at in range(0, 40, 4):
            feed.write(b"".join(command + b"\n" for command in wanted[at : at + 4]))
            host.fates = ["before"]
            task = asyncio.create_task(feed.source().run(host))
            await asyncio.wait({task})
            assert task.cancelled()
            async with running(feed.source(), host):
                await host.until(lambda at=at: len(host.jobs) == at + 4)
        assert host.commands() == wanted

    asyncio.run(main())


def test_a_cancel_while_idle_loses_nothing(feed: Feed) -> None:
    async def main() -> None:
        host = FakeHost()
        for index in range(10):
            async with running(feed.source(), host):
                await host.looks(1)
            feed.write(b"run %d\n" % index)
        async with running(feed.source(), host):
            await host.until(lambda: len(host.jobs) == 10)
        assert host.commands() == [b"run %d" % index for index in range(10)]

    asyncio.run(main())


def test_a_bad_entry_is_taken_with_a_problem(feed: Feed) -> None:
    async def main() -> None:
        host = FakeHost()
        feed.write(b"a\n#gpud: color=red\nb\nc\0\nd\n")
        async with running(feed.source(), host):
            await host.until(lambda: len(host.jobs) == 4)
        assert [bool(job.problem) for job in host.jobs] == [False, True, True, False]
        for job in host.jobs[1:3]:
            assert job.problem.startswith("cannot run line ")
            assert job.spec.entry_key

    asyncio.run(main())


def test_a_take_that_waits_holds_it_up(feed: Feed) -> None:
    """While the store cannot write, nothing is lost and nothing repeated."""

    async def main() -> None:
        host = FakeHost()
        feed.write(b"a\n")
        host.gate = asyncio.Event()
        async with running(feed.source(), host):
            await host.asked(1)
            feed.write(b"b\n")
            await turns_of_the_loop()
            assert host.jobs == []
            host.gate.set()
            await host.until(lambda: len(host.jobs) == 2)
        assert host.commands() == [b"a", b"b"]

    asyncio.run(main())


def test_the_loop_is_not_blocked(feed: Feed) -> None:
    """60,000 lines and one of 5 MB, while a neighbour wants its turn every few milliseconds."""

    async def main() -> None:
        host = FakeHost()
        gaps: list[float] = []

        async def neighbour() -> None:
            last = time.thread_time()
            while True:
                await asyncio.sleep(0.002)
                now = time.thread_time()  # of this thread: what a busy machine takes counts not
                gaps.append(now - last)
                last = now

        text = b"".join(b"run %d --with arguments\n" % index for index in range(60_000))
        text += b"echo " + b"x" * 5_000_000 + b"\n"
        async with running(feed.source(), host):
            await host.looks(1)
            ticking = asyncio.create_task(neighbour())
            await asyncio.sleep(0)
            feed.write(text)
            await host.until(lambda: len(host.jobs) == 60_001, 50.0)
            ticking.cancel()
        assert max(gaps[1:]) < 0.25  # the fake host's own work in a batch is some of it

    asyncio.run(main())
