"""`gpuctl wait`: the exit status is the job's."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from gpud.client import patience
from gpud.errors import GpudError
from gpud.protocol.replies import EndView, Waited
from gpud.protocol.requests import Wait

from .fake_server import DROP, FakeServer
from .tools import PROGRAM, Result, environment

Gpuctl = Callable[..., Result]


def end(job: int, outcome: str, code: int | None = None, signal: int | None = None) -> EndView:
    return EndView(job, outcome, code, signal)


ENDS = [
    (end(1, "succeeded", 0), 0),
    (end(1, "failed", 1), 1),
    (end(1, "failed", 77), 77),
    (end(1, "failed"), 1),
    (end(1, "killed", signal=9), 137),
    (end(1, "killed", signal=15), 143),
    (end(1, "timed-out", signal=15), 124),
    (end(1, "timed-out", 0), 124),
    (end(1, "lost"), 125),
    (end(1, "cancelled", signal=15), 125),
    (end(1, "cancelled"), 125),
    (end(1, "not-started"), 127),
]


@pytest.mark.parametrize(("view", "status"), ENDS)
def test_the_status_is_the_jobs(
    server: FakeServer, gpuctl: Gpuctl, view: EndView, status: int
) -> None:
    server.answers = {Wait: Waited(id=0, jobs=(view,))}
    result = gpuctl("wait", "1")
    assert (result.status, result.out, result.err) == (status, "", "")


def test_of_several_it_is_the_first_in_id_order_that_is_not_0(
    server: FakeServer, gpuctl: Gpuctl
) -> None:
    ends = (end(9, "failed", 3), end(2, "succeeded", 0), end(5, "killed", signal=6))
    server.answers = {Wait: Waited(id=0, jobs=ends)}
    assert gpuctl("wait", "name:sweep").status == 134
    server.answers = {Wait: Waited(id=0, jobs=())}
    assert gpuctl("wait", "state:running").status == 0


@pytest.mark.parametrize(
    ("kind", "status"),
    [("refused", 251), ("usage", 252), ("not-found", 253), ("storage", 254), ("protocol", 254)],
)
def test_its_own_trouble(server: FakeServer, gpuctl: Gpuctl, kind: str, status: int) -> None:
    server.answers = {Wait: GpudError("cannot wait: no", kind=kind)}
    assert gpuctl("wait", "1").status == status


def test_trouble_before_it_is_asked(gpuctl: Gpuctl, tmp_path: Any) -> None:
    assert gpuctl("wait", "--socket", f"{tmp_path}/x", "1").status == 250
    assert gpuctl("wait").status == 252
    assert gpuctl("wait", "--frobnicate", "1").status == 252


def test_json(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {Wait: Waited(id=0, jobs=(end(1, "failed", 2),))}
    result = gpuctl("wait", "1", "--json")
    assert result.status == 2
    assert json.loads(result.out) == {
        "jobs": [{"job": 1, "outcome": "failed", "exit_code": 2, "signal": None}]
    }


def test_a_restart_of_gpud_is_waited_out(server: FakeServer, gpuctl: Gpuctl) -> None:
    answers = iter([DROP, DROP, Waited(id=0, jobs=(end(1, "failed", 7),))])
    server.answers = {Wait: lambda _: next(answers)}
    assert gpuctl("wait", "1", "3-9", "name:x").status == 7
    assert len(server.asked(Wait)) == 3


@pytest.mark.parametrize("selector", ["@", "@~2", "state:active"])
def test_what_may_mean_other_jobs_later_is_not_asked_again(
    server: FakeServer, gpuctl: Gpuctl, selector: str
) -> None:
    server.answers = {Wait: DROP}
    assert gpuctl("wait", selector).status == 250
    assert len(server.asked(Wait)) == 1


def test_a_stop_for_good(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RESTART_WITHIN_S", 0.1)

    def stop(_: Wait) -> object:
        server.path.unlink()
        return DROP

    server.answers = {Wait: stop}
    result = gpuctl("wait", "1")
    assert result.status == 250
    assert "nobody listens there" in result.err


def test_on_a_terminal_it_says_how_they_ended(
    server: FakeServer, terminal: Callable[..., Any]
) -> None:
    ends = (end(1, "succeeded", 0), end(2, "failed", 3), end(3, "killed", signal=9))
    server.answers = {Wait: Waited(id=0, jobs=ends)}
    assert terminal("wait", "1-3", NO_COLOR="1").out == (
        "job 1: succeeded\njob 2: failed with exit status 3\njob 3: killed by SIGKILL\n"
    )
    many = (*(end(n, "succeeded", 0) for n in range(99)), end(99, "failed", 3))
    server.answers = {Wait: Waited(id=0, jobs=many)}
    assert terminal("wait", "all", NO_COLOR="1").out == (
        "job 99: failed with exit status 3\n99 of 100 jobs succeeded\n"
    )


def test_ctrl_c_is_quiet(server: FakeServer) -> None:
    child: list[subprocess.Popen[bytes]] = []

    def interrupt(_: Wait) -> list[object]:
        child[0].send_signal(signal.SIGINT)
        return []

    server.answers = {Wait: interrupt}
    child.append(
        subprocess.Popen(
            [*PROGRAM, "wait", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    )
    out, err = child[0].communicate(timeout=20)
    assert (child[0].returncode, out, err) == (130, b"", b"")
