"""The queue file with real files: what is taken, when, and what gpud says about it."""

# ruff: noqa: ASYNC230, ASYNC240 -- writing a few bytes to a test's own file blocks nobody

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from msgspec import structs

from gpud.sources.reader import BATCH
from gpud.sources.settling import Timing
from gpud.sources.tracker import parse_position

from .conftest import Make
from .fakes import FakeHost, running


def append(path: Path, text: bytes) -> None:
    with open(path, "ab") as file:
        file.write(text)


def replace(path: Path, text: bytes) -> None:
    """As an editor does."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(text)
    os.replace(new, path)


async def new_after(host: FakeHost, looks: int = 3) -> list[bytes]:
    """What is taken in the next looks."""
    before = len(host.jobs)
    await host.looks(looks)
    return host.commands()[before:]


def test_lines_become_jobs(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n# no\n\n#gpud: gpus=2 name=big\nb\nc")
        async with running(make(gpus=1, priority=3), host):
            await host.until(lambda: len(host.jobs) == 2)
            a, b = (job.spec for job in host.jobs)
            assert (a.command, a.where, a.entry_key, a.source) == (b"a", "gpu.queue:1", "1:0", "q")
            assert (a.uid, a.cwd, a.request.gpus) == (1000, bytes(path.parent), 1)
            assert (b.name, b.request.gpus, b.priority, b.where) == ("big", 2, 3, "gpu.queue:5")
            assert "took the 2 jobs" in host.health.note
            assert host.health.problem == ""
            assert await new_after(host) == []  # the partial line waits
            append(path, b"c\n")
            await host.until(lambda: len(host.jobs) == 3)
            assert host.jobs[2].spec.command == b"cc"
            assert a.env is b.env

    asyncio.run(main())


def test_start_at_the_end(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\na\n")
        source = make(start="end")
        async with running(source, host):
            await host.looks()
            assert host.jobs == []
            assert "skipped the 3 jobs" in host.health.note
            append(path, b"a\n")
            await host.until(lambda: host.commands() == [b"a"])
            replace(path, b"new\na\nb\na\na\nb\n")  # skipped lines stay skipped
            await host.until(lambda: len(host.jobs) == 3)
            assert await new_after(host) == []
            assert host.commands() == [b"a", b"new", b"b"]

    asyncio.run(main())


def test_start_at_the_end_of_a_file_that_comes_later(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        async with running(make(start="end"), host):
            await host.looks()
            path.write_bytes(b"a\n")
            await host.until(lambda: host.commands() == [b"a"])

    asyncio.run(main())


def test_start_at_the_end_of_a_long_file(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"".join(b"%d\n" % i for i in range(3000)))
        async with running(make(start="end"), host):
            await host.looks()
            assert host.cursor is not None
            assert len(host.cursor) < 500
            replace(path, b"x\n" + path.read_bytes())
            await host.until(lambda: "replaced" in host.health.note)
            append(path, b"y\n")
            await host.until(lambda: host.commands() == [b"y"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("start", "content", "note"),
    [
        ("beginning", b"# none\n", "took no job of the file at its first sight"),
        ("beginning", b"a\n", "took the one job of the file at its first sight"),
        ("beginning", b"a\nb\n", "took the 2 jobs of the file at its first sight"),
        ("end", b"a\n", 'skipped the one job of the file at its first sight (start = "end")'),
    ],
)
def test_what_was_made_of_the_first_sight(
    path: Path, make: Make, start: str, content: bytes, note: str
) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(content)
        async with running(make(start=start), host):
            await host.until(lambda: host.health.note == note)

    asyncio.run(main())


def test_another_path_is_another_file_whatever_is_in_it(path: Path, make: Make) -> None:
    """What was taken from `q` says nothing of `q2`, though both begin alike."""

    async def main() -> None:
        host = FakeHost()
        other = path.with_name("q2")
        path.write_bytes(b"echo A\necho B\n")
        other.write_bytes(b"echo A\necho C\necho B\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 2)
        async with running(make(path=str(other)), host):
            await host.until(lambda: len(host.jobs) == 5)
            assert "took the 3 jobs of the file at its first sight" in host.health.note
            replace(other, b"echo D\n" + other.read_bytes())  # an edit is still one
            await host.until(lambda: len(host.jobs) == 6)
            assert await new_after(host) == []
        async with running(make(path=str(other)), host):
            assert await new_after(host) == []
        assert host.commands() == [
            *(b"echo A", b"echo B"), *(b"echo A", b"echo C", b"echo B"), b"echo D",
        ]  # fmt: skip

    asyncio.run(main())


def test_another_path_with_start_at_the_end(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        other = path.with_name("q2")
        path.write_bytes(b"a\n")
        other.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 1)
        async with running(make(path=str(other), start="end"), host):
            await host.until(lambda: "skipped the 2 jobs" in host.health.note)
            append(other, b"a\n")
            await host.until(lambda: host.commands() == [b"a", b"a"])

    asyncio.run(main())


def test_a_position_of_before_paths_were_kept_goes_on(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 2)
        assert host.cursor is not None
        host.cursor = structs.replace(parse_position(host.cursor), path="").cursor("q").position
        async with running(make(), host):
            assert await new_after(host) == []
            assert parse_position(host.cursor).path == str(path)
        async with running(make(path=str(path.with_name("q2"))), host):
            path.with_name("q2").write_bytes(b"a\n")
            await host.until(lambda: len(host.jobs) == 3)

    asyncio.run(main())


def test_a_file_that_comes_later(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        async with running(make(), host):
            await host.looks()
            assert "not there" in host.health.note
            assert host.health.problem == ""
            path.write_bytes(b"a\n")
            await host.until(lambda: host.commands() == [b"a"])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        (b"a\nb\n", b"a\nx\nb\n", [b"x"]),
        (b"a\nb\n", b"a\nb\nx\n", [b"x"]),
        (b"a\nb\n", b"x\na\nb\n", [b"x"]),
        (b"a\nb\nc\n", b"a\nc\n", []),
        (b"a\nb\nc\n", b"c\nb\na\n", []),
        (b"a\nb\n", b"b\na\na\nb\nb\n", [b"a", b"b", b"b"]),
        (b"a\nb\n", b"c\n", [b"c"]),
        (b"a\nb\n", b"#gpud: gpus=2\nA\nb\n", [b"A"]),
        (b"a\ncat <<E\nx\nE\n", b"cat <<E\nx\nE\ncat <<E\ny\nE\na\n", [b"cat <<E\ny\nE"]),
    ],
)
@pytest.mark.parametrize("how", ["rename", "in place"])
def test_an_edited_file(
    path: Path, make: Make, before: bytes, after: bytes, new: list[bytes], how: str
) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(before)
        async with running(make(), host):
            await host.until(lambda: host.jobs)
            if how == "rename":
                replace(path, after)
            else:
                with open(path, "r+b") as file:
                    file.write(after)
                    file.truncate()
            assert await new_after(host) == new
            assert host.health.note
            append(path, b"z\na\n")  # what is appended after an edit is new, equal or not
            assert await new_after(host) == [b"z", b"a"]
            replace(path, after + b"z\na\nlast\n")
            assert await new_after(host) == [b"last"]

    asyncio.run(main())


def test_an_emptied_file_starts_anew(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: host.jobs)
            path.write_bytes(b"")
            await host.until(lambda: "emptied" in host.health.note)
            path.write_bytes(b"a\n")
            assert await new_after(host) == [b"a"]
            assert host.jobs[-1].spec.entry_key == "2:0"

    asyncio.run(main())


def test_an_editor_that_empties_the_file_for_a_moment(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(timing=Timing(settle_s=0.25)), host):
            await host.until(lambda: host.jobs)
            path.write_bytes(b"")
            await host.until(lambda: "at rest" in host.health.note)
            path.write_bytes(b"a\nx\nb\n")
            await host.until(lambda: len(host.jobs) > 2)
            assert host.commands() == [b"a", b"b", b"x"]

    asyncio.run(main())


def test_emptied_and_written_between_two_looks(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: host.jobs)
            path.write_bytes(b"b\nc\n")
            assert await new_after(host) == [b"c"]
            assert "1 line taken, 1 had been taken before" in host.health.note

    asyncio.run(main())


def test_rotation(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: host.jobs)
            path.rename(path.with_suffix(".1"))
            await host.looks()
            path.write_bytes(b"b\nc\n")
            assert await new_after(host) == [b"b", b"c"]
            assert "away" in host.health.note

    asyncio.run(main())


def test_a_file_that_comes_back_as_it_was(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: host.jobs)
            path.rename(path.with_suffix(".1"))
            await host.looks()
            path.with_suffix(".1").rename(path)
            append(path, b"a\n")
            assert await new_after(host) == [b"a"]

    asyncio.run(main())


def test_the_directory_vanishes_and_comes_back(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n")
        away = path.parent.with_name(path.parent.name + "-away")
        for watch in (False, True):
            async with running(make(watch=watch), host):
                await host.until(lambda: host.jobs)
                path.parent.rename(away)
                await host.until(lambda: host.health.problem)
                assert host.health.problem.startswith(f"cannot read {path}: ")
                assert "no such file or directory" in host.health.problem
                away.rename(path.parent)
                append(path, b"b%d\n" % watch)
                await host.until(lambda watch=watch: host.commands()[-1] == b"b%d" % watch)
                assert host.health.problem == ""

    asyncio.run(main())


def test_what_is_no_plain_file(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.mkdir()
        async with running(make(), host):
            await host.until(lambda: "it is a directory" in host.health.problem)
            path.rmdir()
            os.mkfifo(path)
            await host.until(lambda: "a named pipe" in host.health.problem)
            path.unlink()
            path.write_bytes(b"a\n")
            await host.until(lambda: host.commands() == [b"a"])
            await host.looks()
            assert host.health.problem == ""

    asyncio.run(main())


def test_a_file_that_cannot_be_read(path: Path, make: Make) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")

    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n")
        path.chmod(0)
        async with running(make(), host):
            await host.until(lambda: "permission denied" in host.health.problem)
            path.chmod(0o600)
            await host.until(lambda: host.commands() == [b"a"])

    asyncio.run(main())


def test_bytes_that_are_no_text(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"echo \xff\xfe\na\0b\n#gpud: gpsu=2\nc\nd\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 4)
        assert host.commands() == [b"echo \xff\xfe", b"a\0b", b"c", b"d"]
        unknown = 'on line 3 the option "gpsu" is not known; the nearest is "gpus"'
        assert [job.problem for job in host.jobs] == [
            "",
            "cannot run line 2 of gpu.queue: it contains a NUL byte",
            f"cannot run line 4 of gpu.queue: {unknown}",
            "",
        ]

    asyncio.run(main())


def test_a_line_of_10_mb(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        long = b"echo " + b"x" * 10_000_000
        path.write_bytes(long + b"\nb\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 2)
        assert host.commands() == [long, b"b"]

    asyncio.run(main())


def test_100_000_lines_at_once(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"")
        async with running(make(), host):
            await host.looks()
            append(path, b"".join(b"run %d\n" % i for i in range(100_000)))
            await host.until(lambda: len(host.jobs) == 100_000, 50.0)
        assert host.commands() == [b"run %d" % i for i in range(100_000)]
        assert max(host.takes) <= BATCH
        assert len(host.cursor or "") < 300

    asyncio.run(main())


def test_the_cursor_survives_restarts(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n#gpud: name=x\n")
        for text, commands in ((b"b\nc", [b"a", b"b"]), (b"c\n", [b"a", b"b", b"cc"])):
            async with running(make(), host):
                await host.looks()
            append(path, text)  # while nobody looks
            async with running(make(), host):
                await host.until(lambda commands=commands: len(host.jobs) == len(commands))
                assert await new_after(host) == []
            assert host.commands() == commands
        assert [job.spec.name for job in host.jobs] == ["", "x", ""]
        replace(path, b"a\nz\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 4)
        assert host.commands()[3:] == [b"z"]

    asyncio.run(main())


def test_shorter_after_a_crash_of_the_machine(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\nc\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 3)
        path.write_bytes(b"a\n")  # the tail is lost
        async with running(make(boot="boot-2"), host):
            await host.until(lambda: "before the machine was started again" in host.health.note)
            append(path, b"b\n")  # written again: not run again
            assert await new_after(host) == []
            append(path, b"x\n")  # something else: run
            assert await new_after(host) == [b"x"]
            append(path, b"b\n")  # beyond what was lost: run
            assert await new_after(host) == [b"b"]
        assert len(host.jobs) == 5

    asyncio.run(main())


def test_beyond_what_a_crash_lost_all_is_new(path: Path, make: Make) -> None:
    """Also when it is seen in one look with what was lost."""

    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\nc\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 3)
        path.write_bytes(b"a\n")
        async with running(make(boot="boot-2"), host):
            await host.looks()
            append(path, b"b\nx\nc\n")
            assert await new_after(host) == [b"x", b"c"]

    asyncio.run(main())


@pytest.mark.parametrize("returned", [b"a\nb\nc\n", b"a\nb\nc\nd\n"])
def test_emptied_by_a_crash_of_the_machine(path: Path, make: Make, returned: bytes) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\nc\n")
        async with running(make(), host):
            await host.until(lambda: len(host.jobs) == 3)
        path.write_bytes(b"")
        async with running(make(boot="boot-2"), host):
            await host.looks()
        async with running(make(boot="boot-2"), host):
            await host.looks()
            path.write_bytes(returned)
            await host.looks(3)
        assert host.commands() == [b"a", b"b", b"c", b"d"][: len(returned) // 2]

    asyncio.run(main())


def test_the_same_boot_after_a_good_look_is_a_truncation(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\nb\n")
        async with running(make(), host):
            await host.until(lambda: host.jobs)
        async with running(make(boot="boot-2"), host):
            await host.looks()
            path.write_bytes(b"")
            await host.until(lambda: "emptied" in host.health.note)

    asyncio.run(main())


def test_a_here_document_that_is_never_closed(path: Path, make: Make) -> None:
    async def main() -> None:
        host, now = FakeHost(), [0.0]
        path.write_bytes(b"cat <<EOF\nb\n")
        async with running(make(clock=lambda: now[0]), host):
            await host.looks(3)
            assert host.jobs == []
            now[0] = 59.0
            append(path, b"c\n")
            await host.looks(3)
            now[0] = 100.0
            await host.looks(3)
            assert host.jobs == []
            now[0] = 119.5
            await host.until(lambda: len(host.jobs) == 3)
        assert host.commands() == [b"cat <<EOF", b"b", b"c"]
        assert "here-document" in host.jobs[0].problem
        assert [job.problem for job in host.jobs[1:]] == ["", ""]

    asyncio.run(main())


def test_an_overlong_line_over_a_restart(path: Path, make: Make) -> None:
    from gpud.sources.lexer import Limits

    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n" + b"x" * 5000)
        for _ in range(2):
            async with running(make(limits=Limits(max_bytes=1000)), host):
                await host.looks(3)
                append(path, b"y" * 3000)
        append(path, b"\nb\n")
        async with running(make(limits=Limits(max_bytes=1000)), host):
            await host.until(lambda: len(host.jobs) == 3)
        assert [job.problem for job in host.jobs] == [
            "",
            "cannot run line 2 of gpu.queue: it is longer than 1000 bytes",
            "",
        ]
        assert host.jobs[2].spec.where == "gpu.queue:3"

    asyncio.run(main())


def test_an_env_file_that_is_not_there(path: Path, make: Make) -> None:
    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n")
        async with running(make(env_file="env", environ={b"HOME": b"/h"}, env={"B": "2"}), host):
            await host.until(lambda: host.health.problem)
            assert "cannot read" in host.health.problem
            (path.parent / "env").write_bytes(b"# c\nexport A='x y'\nB=1\n")
            await host.until(lambda: host.jobs)
        assert host.jobs[0].spec.env == b"A=x y\0B=2\0HOME=/h"

    asyncio.run(main())


def test_a_file_system_that_does_not_answer(
    path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds up neither the loop nor the end of the run."""
    import threading

    from gpud import filesystem
    from gpud.sources import file_sight

    hang = threading.Event()

    def stuck(_: str, owner: int | None) -> file_sight.Sight:
        hang.wait(20.0)
        raise AssertionError("not waited for")

    monkeypatch.setattr(filesystem, "type_of", lambda _: "nfs4")
    monkeypatch.setattr(file_sight, "open_file", stuck)

    async def main() -> None:
        host = FakeHost()
        async with running(make(timing=Timing(answer_s=0.05)), host):
            await host.until(lambda: "no answer for 0.05 s" in host.health.problem)
            assert "nfs4" in host.health.note

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10.0
    hang.set()


def test_a_network_file_system_is_polled(
    path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpud import filesystem

    monkeypatch.setattr(filesystem, "type_of", lambda _: "fuse.sshfs")

    async def main() -> None:
        host = FakeHost()
        path.write_bytes(b"a\n")
        async with running(make(watch=True), host):
            await host.until(lambda: host.commands() == [b"a"])
            append(path, b"b\n")
            await host.until(lambda: host.commands() == [b"a", b"b"])
            assert "only one host may append" in host.health.note

    asyncio.run(main())


def test_a_watched_file(path: Path, make: Make) -> None:
    """The first line after a pause within a good second, the next ones at once."""

    async def main() -> None:
        host = FakeHost()
        async with running(make(watch=True, poll_s=100.0), host):
            await host.looks(1)
            path.write_bytes(b"a\n")
            await host.until(lambda: host.commands() == [b"a"], 10.0)
            began = time.monotonic()
            append(path, b"b\n")
            await host.until(lambda: len(host.jobs) == 2, 10.0)
            assert time.monotonic() - began < 0.9

    asyncio.run(main())


def test_an_idle_watch_wakes_up_once_a_second(tmp_path: Path) -> None:
    """All threads of a process that only watches one file, over four seconds."""
    program = textwrap.dedent(
        """
        import asyncio, glob, pathlib, sys
        from gpud.config.schema import JobDefaults, QueueFileSource
        from gpud.sources.queue_file import QueueFile

        class Host:
            def position(self): return None
            async def taken(self, generation): return {}
            async def take(self, jobs, cursor): return 0
            def report(self, health): pass

        def switches():
            total = 0
            for name in glob.glob("/proc/self/task/*/status"):
                for line in open(name):
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
            return total

        async def main():
            base = pathlib.Path(sys.argv[1])
            source = QueueFile("q", QueueFileSource(path="q"), JobDefaults(), boot_id="b", uid=0,
                               base_dir=base)
            task = asyncio.create_task(source.run(Host()))
            await asyncio.sleep(0.8)  # until the start is over
            before = switches()
            await asyncio.sleep(4.0)  # what is measured is a rate: there is no event to wait for
            print((switches() - before) / 4.0)
            task.cancel()

        asyncio.run(main())
        """
    )
    (tmp_path / "q").write_bytes(b"a\n")
    rates = []
    for _ in range(3):  # a loaded machine adds some: the best of three is what the program does
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        rates.append(float(done.stdout))
        if rates[-1] <= 1.5:
            break
    assert min(rates) <= 1.5, rates
