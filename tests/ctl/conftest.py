"""A fake daemon at a short path, and gpuctl run inside the test or as a process of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpud.ctl.main import main

from .fake_server import FakeServer
from .tools import PROGRAM, Result, environment


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """UTC, and nothing of the person who runs the tests."""
    monkeypatch.setenv("TZ", "UTC")
    for name in ("GPUD_SOCKET", "NO_COLOR", "COLUMNS", "GPUCTL_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ctl") as directory:
        yield Path(directory)


@pytest.fixture
def server(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    fake = FakeServer(short_path / "gpud.sock")
    monkeypatch.setenv("GPUD_SOCKET", str(fake.path))
    yield fake
    fake.close()


@pytest.fixture
def gpuctl(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Result]:
    """Run in this process, as in a pipe."""

    def run(*argv: str) -> Result:
        status = main(argv)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(status, out.decode(), err.decode())

    return run


@pytest.fixture
def process() -> Callable[..., Result]:
    """Run as a process, in pipes."""

    def run(*argv: str, stdin: bytes = b"", program: list[str] = PROGRAM, **more: Any) -> Result:
        ended = subprocess.run(
            [*program, *argv], input=stdin, capture_output=True, timeout=30,
            env=environment(**more),
        )  # fmt: skip
        return Result(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run


@pytest.fixture
def terminal() -> Callable[..., Result]:
    """Run on a terminal of its own, 80 columns wide; `typed` is what the person types."""

    def run(*argv: str, typed: bytes = b"", columns: int = 80, **more: str) -> Result:
        ours, theirs = pty.openpty()
        settings = environment(**{"TERM": "xterm", "COLUMNS": str(columns), **more})
        child = subprocess.Popen(
            [*PROGRAM, *argv], stdin=theirs, stdout=theirs, stderr=theirs, env=settings,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        killer = threading.Timer(20, child.kill)
        killer.start()
        os.write(ours, typed)
        shown = bytearray()
        try:
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:
            pass  # EIO: nobody has the other side any more
        os.close(ours)
        status = child.wait()
        killer.cancel()
        killer.join()
        return Result(status, shown.decode().replace("\r\n", "\n"), "")

    return run
