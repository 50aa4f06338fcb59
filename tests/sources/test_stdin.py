"""Standard input: pipes, files, terminals, and their ends."""

# ruff: noqa: ASYNC230 -- writing a few bytes to a test's own file blocks nobody

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from pathlib import Path

from gpud.config.schema import JobDefaults
from gpud.core.model import Request
from gpud.sources.stdin import Stdin

from .fakes import FakeHost, running, turns_of_the_loop


def stdin(fd: int, **more: object) -> Stdin:
    return Stdin(fd, JobDefaults(), cwd=b"/", env=b"A=1", uid=1, **more)  # type: ignore[arg-type]


def test_a_pipe_line_by_line() -> None:
    async def main() -> None:
        host = FakeHost()
        out, into = os.pipe()
        async with running(stdin(out, request=Request(1)), host) as task:
            for index in range(3):
                os.write(into, b"run %d\n" % index)
                await host.until(lambda index=index: len(host.jobs) == index + 1)
            os.write(into, b"cat <<E\nx\nE\nlast")
            await host.until(lambda: len(host.jobs) == 4)
            assert not task.done()
            os.close(into)
            await task
        assert host.commands() == [b"run 0", b"run 1", b"run 2", b"cat <<E\nx\nE", b"last"]
        assert host.jobs[4].spec.where == "standard input:7"
        assert host.jobs[0].spec.request.gpus == 1
        assert host.cursor is None
        os.close(out)

    asyncio.run(main())


def test_a_redirected_file(tmp_path: Path) -> None:
    async def main() -> None:
        host = FakeHost()
        (tmp_path / "jobs").write_bytes(b"".join(b"run %d\n" % i for i in range(30_000)) + b"end")
        with open(tmp_path / "jobs", "rb") as file:
            await stdin(file.fileno()).run(host)
        assert host.commands() == [b"run %d" % i for i in range(30_000)] + [b"end"]
        assert max(host.takes) <= 10_000

    asyncio.run(main())


def test_nothing() -> None:
    async def main() -> None:
        host = FakeHost()
        with open(os.devnull, "rb") as file:
            await stdin(file.fileno()).run(host)
        assert host.jobs == []

    asyncio.run(main())


def test_a_terminal_that_hangs_up() -> None:
    async def main() -> None:
        host = FakeHost()
        master, slave = pty.openpty()
        async with running(stdin(slave), host) as task:
            os.write(master, b"a\ncut o")
            await host.until(lambda: host.commands() == [b"a"])
            os.close(master)
            await task
        assert host.commands() == [b"a"]
        os.close(slave)

    asyncio.run(main())


def test_what_is_open_at_the_end() -> None:
    async def main() -> None:
        host = FakeHost()
        out, into = os.pipe()
        os.write(into, b"a\ncat <<EOF\nb\n#gpud: gpus=1\n")
        os.close(into)
        await stdin(out).run(host)
        os.close(out)
        assert host.commands() == [b"a", b"cat <<EOF", b"b", b"#gpud: gpus=1"]
        assert [bool(job.problem) for job in host.jobs] == [False, True, False, True]

    asyncio.run(main())


def test_variables_of_options_without_a_command_are_not_shown() -> None:
    async def main() -> None:
        host = FakeHost()
        out, into = os.pipe()
        os.write(into, b"#gpud: gpus=1 env.TOKEN='hunter2 x' env.B=hunter2\n")
        os.close(into)
        await stdin(out).run(host)
        os.close(out)
        (job,) = host.jobs
        assert job.spec.command == "#gpud: gpus=1 env.…".encode()
        assert "no command follows" in job.problem

    asyncio.run(main())


def test_a_here_document_that_is_never_closed() -> None:
    async def main() -> None:
        host, now = FakeHost(), [0.0]
        out, into = os.pipe()
        os.write(into, b"cat <<EOF\nb\n")
        source = stdin(out, clock=lambda: now[0])
        async with running(source, host):
            await host.looks(2)
        now[0] = 60.0
        async with running(source, host):
            await host.until(lambda: len(host.jobs) == 2)
        os.close(into)
        os.close(out)

    asyncio.run(main())


def test_it_reads_on_only_when_what_it_read_is_taken() -> None:
    async def main() -> None:
        host = FakeHost()
        host.gate = asyncio.Event()
        out, into = os.pipe()
        os.write(into, b"a\n")
        async with running(stdin(out), host):
            await host.asked(1)
            os.write(into, b"b\n")
            await turns_of_the_loop()
            assert os.read(out, 10) == b"b\n"  # still in the pipe
            host.gate.set()
            await host.until(lambda: host.commands() == [b"a"])
        os.close(into)
        os.close(out)

    asyncio.run(main())


def test_the_descriptor_stays_as_it_is() -> None:
    async def main() -> None:
        host = FakeHost()
        out, into = os.pipe()
        async with running(stdin(out), host):
            await host.looks(1)
            await turns_of_the_loop()
            assert os.get_blocking(out)
        os.close(into)
        os.close(out)

    asyncio.run(main())


def test_what_importing_it_loads() -> None:
    program = (
        "import sys, gpud.sources.stdin, gpud.sources.queue_file; "
        "sys.exit(bool({'watchfiles', 'anyio', 'structlog'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
