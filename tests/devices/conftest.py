from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.core.sight import GpuSight
from gpud.devices.helper import COMMAND, ROOT
from gpud.devices.wire import (
    Answer,
    Broke,
    Cannot,
    Find,
    Found,
    Look,
    Looked,
    Request,
    Seen,
    decode_answer,
    encode,
)
from tests.devices.nvml_stub import Stub


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """A driver with two GPUs that are well."""
    made = Stub(tmp_path, gpus=2)
    yield made
    made.close()


@pytest.fixture
def here(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the driver of the test's own process."""
    stub.use_here(monkeypatch)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Talk:
    """A conversation with a GPU helper, as devices/driver.py has it, without its patience."""

    def __init__(self, stub: Stub) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *COMMAND[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=stub.environment,
            start_new_session=True,
        )

    def send(self, request: Request) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode(request) + b"\n")
        self.process.stdin.flush()

    def read(self) -> Answer:
        assert self.process.stdout is not None
        return decode_answer(self.process.stdout.readline())

    def ask(self, request: Request) -> list[Answer]:
        """Its lines up to the one that ends the answer."""
        self.send(request)
        answers = [self.read()]
        while not isinstance(answers[-1], Found | Looked | Cannot):
            answers.append(self.read())
        return answers

    def find(self, skip: tuple[int, ...] = (), of: int = 0) -> Found:
        found = self.ask(Find(skip, of))[-1]
        assert isinstance(found, Found), found
        return found

    def look(self, look: Look = Look()) -> dict[str, GpuSight]:  # noqa: B008
        """The sights by UUID."""
        seen = [answer for answer in self.ask(look) if isinstance(answer, Seen)]
        return {sight.uuid: sight for answer in seen for sight in answer.sights}

    def hear(self) -> Broke:
        broke = self.read()
        assert isinstance(broke, Broke), broke
        return broke

    def end(self) -> tuple[int, bytes]:
        """Close its input; its status, and what it wrote to standard error."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        return self.process.wait(10), errors


@pytest.fixture
def talk(stub: Stub) -> Iterator[Talk]:
    """A helper that has said what there is."""
    talking = Talk(stub)
    talking.find()
    with talking.process:
        yield talking
        talking.process.kill()
