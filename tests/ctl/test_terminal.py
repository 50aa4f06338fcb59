"""Colours and widths on a real terminal, and none of them in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpud.protocol import replies, requests

from . import samples
from .fake_server import FakeServer
from .tools import PROGRAM

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def daemon(server: FakeServer) -> None:
    server.answers = {
        requests.Status: samples.STATUS,
        requests.Ls: replies.JobsReply(id=0, jobs=samples.JOBS * 200, more=0),
        requests.Gpus: replies.GpusReply(id=0, gpus=samples.GPUS),
    }


def test_a_terminal_has_colours(terminal: Run) -> None:
    shown = terminal("status").out
    assert "\x1b[31mcannot read /mnt/lab/gpu.queue: stale file handle\x1b[0m" in shown
    assert "\x1b[31m1 failed\x1b[0m" in shown


@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_but_not_for_those_who_want_none(terminal: Run, plain: dict[str, str]) -> None:
    result = terminal("status", **plain)
    assert result.status == 0
    assert "\x1b" not in result.out


def test_a_pipe_has_none(process: Run) -> None:
    for argv in (["status"], ["ls"], ["gpus"]):
        result = process(*argv, TERM="xterm", COLUMNS="40")
        assert result.status == 0
        assert "\x1b" not in result.out
        assert "…" not in result.out


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_shown_fits(terminal: Run, width: int) -> None:
    lines = terminal("ls", columns=width, NO_COLOR="1").out.splitlines()
    assert max(map(len, lines)) == width


def test_ascii_terminals_get_ascii(terminal: Run, process: Run) -> None:
    for run in (terminal, process):
        result = run("ls", NO_COLOR="1", PYTHONIOENCODING="ascii:strict")
        assert result.status == 0
        assert result.out.isascii()
        assert "./simulate\\x1b[31m\\n--unt" in result.out


def test_a_reader_that_has_seen_enough(process: Run) -> None:
    line = f'"{PROGRAM[0]}" -c "{PROGRAM[2]}" ls | head -1; exit $?'
    result = process(line, program=["sh", "-c"])
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("ID ")
    assert result.out.count("\n") == 1
