"""A submit starts fast: what it may not import, and what it does import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.protocol import replies, requests

from .fake_server import FakeServer
from .tools import PROGRAM, environment

# Each of these costs a good part of what a submit may cost in all.
SLOW = {
    "argparse", "asyncio", "contextlib", "dataclasses", "difflib", "enum", "functools", "inspect",
    "json", "logging", "msgspec", "pathlib", "random", "re", "secrets", "selectors", "shutil",
    "signal", "socket", "subprocess", "tempfile", "textwrap", "threading", "traceback", "typing",
    "uuid", "anyio", "google", "gspread", "pynvml", "structlog", "watchfiles",
}  # fmt: skip
TELL = (
    "import sys; before = set(sys.modules); from gpud.ctl.main import main; status = main();"
    "print(*(set(sys.modules) - before), file=sys.stderr); sys.exit(status)"
)
ANSWERS: dict[type, Any] = {
    requests.Submit: replies.Submitted(id=0, first=42, count=1),
    requests.Ping: replies.Pong(id=0, gpud="0.1.0", host="node7", pid=1, started_at_ms=1),
}


@pytest.mark.parametrize(
    "argv",
    [
        ["submit", "python train.py > log"],
        ["submit", "--gpus", "2", "--name=x", "--env", "A=1", "--time-limit", "2h", "--", "a", "b"],
        ["ping"],
    ],
)
def test_a_hot_verb_imports_nothing_slow(server: FakeServer, argv: list[str]) -> None:
    server.answers = ANSWERS
    # -S: without `site`, which may import whatever an installation makes it import.
    ended = subprocess.run(
        [sys.executable, "-S", "-c", TELL, *argv],
        input=b"true\n", capture_output=True, env=environment(), timeout=30,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    imported = set(ended.stderr.decode().split())
    assert imported & SLOW == set()
    assert "gpud.client.connection" in imported
    assert len(imported) < 40, sorted(imported)


def test_reading_a_socket_path_is_no_reason_for_pathlib(
    server: FakeServer, process: Callable[..., Any], tmp_path: Path
) -> None:
    """What gpud.paths and the client's copy of its order say is tested in test_connection."""
    server.answers = ANSWERS
    code = PROGRAM[2].replace("sys.exit(main())", "main(); sys.exit('pathlib' in sys.modules)")
    assert process("ping", program=[sys.executable, "-S", "-c", code]).status == 0
