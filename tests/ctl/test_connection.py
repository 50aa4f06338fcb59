"""Reaching the daemon: where it is looked for, and what is said when it is not there."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud import paths
from gpud.client import connection, where
from gpud.client.connection import Connection, connect
from gpud.errors import GpudError
from gpud.protocol import replies, requests
from gpud.protocol.framing import encode_line

from .fake_server import DROP, FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]
PONG = replies.Pong(id=0, gpud="0.1.0", host="node7", pid=1, started_at_ms=1)


@pytest.mark.parametrize(
    "given",
    list(itertools.product(*[(None, "SET")] * 5)),
    ids=lambda given: "".join("01"[bool(one)] for one in given),
)
def test_the_order_is_that_of_gpud_itself(
    given: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("GPUD_SOCKET", "STATE_DIRECTORY", "XDG_STATE_HOME", "RUNTIME_DIRECTORY",
             "XDG_RUNTIME_DIR")  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in zip(names, given, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            (tmp_path / name).mkdir()
            monkeypatch.setenv(name, f"{tmp_path / name}")
    assert where.candidates() == [str(path) for path in paths.socket_candidates()]


def test_several_directories_of_systemd_and_a_runtime_directory_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/a:/b")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert where.candidates() == [str(path) for path in paths.socket_candidates()]


def test_the_first_place_where_somebody_listens(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.answers = {requests.Ping: PONG}
    (tmp_path / "gpud").mkdir()
    dead = socket.socket(socket.AF_UNIX)
    with connection_in(tmp_path / "gpud"):
        dead.bind("gpud.sock")
    dead.close()  # the file stays: a daemon that was killed
    monkeypatch.delenv("GPUD_SOCKET")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("STATE_DIRECTORY", str(server.path.parent))
    assert gpuctl("ping").status == 0


class connection_in:
    """The working directory for a while: a short way to a long path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.back = os.getcwd()
        os.chdir(self.path)

    def __exit__(self, *_: object) -> None:
        os.chdir(self.back)


def test_nobody_listens(gpuctl: Gpuctl, short_path: Path) -> None:
    result = gpuctl("--socket", f"{short_path}/x.sock", "ping")
    assert result.status == 4
    assert result.out == ""
    assert result.err == (
        f"gpuctl: cannot reach gpud at {short_path}/x.sock: nobody listens there\n"
        "  start it: gpud serve --gpus 0,1\n"
    )


def test_the_other_places_are_named(
    gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(where, "SYSTEM_SOCKET", f"{tmp_path}/run/gpud.sock")
    assert gpuctl("ping").err == (
        f"gpuctl: cannot reach gpud at {tmp_path}/gpud.sock: nobody listens there\n"
        f"  also tried: {tmp_path}/run/gpud.sock\n"
        "  start it: gpud serve --gpus 0,1\n"
    )


def test_a_dead_socket_and_a_file(gpuctl: Gpuctl, short_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(short_path / "dead"))
    dead.close()
    assert "dead: nobody listens there\n" in gpuctl("ping", f"--socket={short_path}/dead").err
    (short_path / "file").write_text("")
    result = gpuctl("ping", f"--socket={short_path}/file")
    assert result.status == 4
    assert result.err == f"gpuctl: cannot reach gpud at {short_path}/file: that is not a socket\n"


def test_the_socket_of_somebody_else(
    gpuctl: Gpuctl, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(connection, "_connect", refuse)
    result = gpuctl("ping")
    assert result.status == 4
    assert ": permission denied (the socket belongs to " in result.err


def test_a_path_longer_than_an_address(server: FakeServer, gpuctl: Gpuctl, tmp_path: Path) -> None:
    server.answers = {requests.Ping: PONG}
    deep = tmp_path / ("d" * 100) / "gpud.sock"
    deep.parent.mkdir()
    deep.symlink_to(server.path)
    assert len(str(deep)) > 107
    assert gpuctl("ping", "--socket", str(deep)).status == 0
    missing = gpuctl("ping", "--socket", f"{deep}/nothing")
    assert missing.status == 4
    assert "not a directory" in missing.err


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n", b"{}\n", b'{"gpud":"1","protocol":"x"}\n', b"[]\n", b"\xff\n",
     b"x" * 70_000],
)  # fmt: skip
def test_somebody_else_answers(server: FakeServer, gpuctl: Gpuctl, greeting: bytes) -> None:
    server.greeting = greeting
    result = gpuctl("ping")
    assert result.status == 4
    assert result.err == (
        f"gpuctl: cannot reach gpud at {server.path}: who answers there is not gpud\n"
    )


def test_it_turns_this_client_away(server: FakeServer, gpuctl: Gpuctl) -> None:
    """The 501st client, or a user who is not let in: the reason is in the greeting's place."""
    why = "cannot talk to gpud: 500 clients are connected"
    server.greeting = encode_line(replies.Error(id=0, kind="refused", message=why))
    result = gpuctl("ping")
    assert (result.status, result.err) == (1, f"gpuctl: {why}\n")


def test_it_says_nothing(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.greeting = b""
    monkeypatch.setattr(connection, "GREETING_WITHIN_S", 0.05)
    result = gpuctl("ping")
    assert result.status == 4
    assert f"cannot reach gpud at {server.path}: it does not answer\n" in result.err


def test_it_closes_at_once(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.greeting = b""
    server.answers = {}
    closer = threading.Timer(0.1, lambda: server._connections[0].shutdown(socket.SHUT_RDWR))
    closer.start()
    result = gpuctl("ping")
    closer.join()
    assert result.status == 4
    assert "it closed the connection before it answered" in result.err


def test_a_newer_protocol(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.greeting = b'{"gpud":"0.9.0","protocol":2,"features":[],"host":"h"}\n'
    result = gpuctl("ping")
    assert result.status == 4
    assert result.err == (
        f"gpuctl: cannot talk to gpud 0.9.0 at {server.path}: it speaks protocol 2, this gpuctl "
        "(0.1.0) speaks 1\n  use the gpuctl that came with gpud 0.9.0\n"
    )


def test_it_goes_away_before_it_answers(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {requests.Ping: DROP}
    result = gpuctl("ping")
    assert result.status == 4
    assert result.err == (
        f"gpuctl: cannot hear from gpud at {server.path}: it closed the connection before it "
        "answered\n  gpuctl ping says whether it is back\n"
    )


@pytest.mark.parametrize("garbage", [b"garbage\n", b"[1]\n", b"\xff\n", b'{"type":\n'])
def test_what_cannot_be_understood(server: FakeServer, gpuctl: Gpuctl, garbage: bytes) -> None:
    server.answers = {requests.Ping: garbage}
    result = gpuctl("ping")
    assert result.status == 1
    assert f"cannot understand what gpud at {server.path} says" in result.err
    assert "Traceback" not in result.err


def test_a_reply_of_another_shape_is_a_sentence_too(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {requests.Status: b'{"type":"status","id":1}\n'}
    result = gpuctl()
    assert result.status == 1
    assert result.err == (
        "gpuctl: cannot go on: KeyError: 'now_ms'\n"
        "  this is a bug in gpuctl; GPUCTL_TRACEBACK=1 shows where\n"
    )


def test_replies_to_others_and_unknown_ones_are_passed_over(server: FakeServer) -> None:
    server.answers = {
        requests.Ping: [b'{"type":"news","text":"x"}\n', b'{"type":"pong","id":99,"pid":7}\n', PONG]
    }
    with connect(str(server.path)) as there:
        assert there.greeting["host"] == "node7"
        assert there.ask({"type": "ping"})["pid"] == 1


def test_a_reply_in_pieces_and_a_long_one(server: FakeServer) -> None:
    long = "x" * 3_000_000
    server.answers = {
        requests.Why: replies.Reasons(id=0, reasons=(replies.ReasonView(1, "queued", long),)),
        requests.Ping: [b'{"type":"po', b'ng","id":2,', b'"pid":7}\n'],
    }
    with connect(str(server.path)) as there:
        assert there.ask({"type": "why", "jobs": [1]})["reasons"][0]["reason"] == long
        assert there.ask({"type": "ping"})["pid"] == 7


@pytest.mark.parametrize(
    ("kind", "status"),
    [("refused", 1), ("usage", 2), ("not-found", 3), ("storage", 1), ("protocol", 1),
     ("config", 1), ("of-the-future", 1)],
)  # fmt: skip
def test_what_the_daemon_refuses(
    server: FakeServer, gpuctl: Gpuctl, kind: str, status: int
) -> None:
    server.answers = {requests.Reload: GpudError("cannot do that: no", kind=kind, hint="do this")}
    result = gpuctl("reload")
    assert result.status == status
    assert result.err == "gpuctl: cannot do that: no\n  do this\n"


def test_control_characters_in_a_sentence_stay_there(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {requests.Reload: GpudError("cannot \x1b[31mdo that\r: no")}
    assert gpuctl("reload").err == "gpuctl: cannot ?[31mdo that?: no\n"


def test_a_request_that_is_too_long_is_not_sent(server: FakeServer) -> None:
    with connect(str(server.path)) as there, pytest.raises(GpudError, match="cannot send the wait"):
        there.ask({"type": "wait", "jobs": ["name:" + "x" * (1 << 20)]})
    assert server.requests == []


def test_the_answer_to_what_could_not_be_sent_whole_is_heard() -> None:
    """The daemon refuses a submit at its first line, and closes while the rest is on its way."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"gpud":"0.1.0","protocol":1}\n')
    theirs.sendall(b'{"type":"error","id":1,"kind":"refused","message":"cannot submit: no"}\n')
    theirs.shutdown(socket.SHUT_RD)
    theirs.close()
    with Connection(ours, "/s") as there, pytest.raises(GpudError, match=r"^cannot submit: no$"):  # type: ignore[arg-type]
        there.ask({"type": "submit", "count": 1}, [b"x" * 1000 + b"\n"] * 1000)


def test_a_reason_is_heard_behind_answers_to_what_was_asked_before() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b'{"gpud":"0.1.0","protocol":1}\n{"type":"event","id":1,"event":{}}\n')
    theirs.sendall(b'{"type":"error","id":0,"kind":"protocol","message":"cannot read it"}\n')
    theirs.close()
    with Connection(ours, "/s") as there, pytest.raises(GpudError, match=r"^cannot read it$"):  # type: ignore[arg-type]
        there.send({"type": "submit", "count": 1}, [b"x" * 1000 + b"\n"] * 1000)


def test_ping_says_who_answers(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {requests.Ping: PONG}
    result = gpuctl("ping")
    assert result.out.startswith("gpud 0.1.0 on node7 answers: pid 1, up ")
    assert gpuctl("ping", "--json").out == (
        '{"gpud": "0.1.0", "host": "node7", "pid": 1, "started_at_ms": 1}\n'
    )


def test_unknown_verbs(gpuctl: Gpuctl) -> None:
    result = gpuctl("sumbit", "x")
    assert result.status == 2
    assert result.err == (
        'gpuctl: cannot do "sumbit": no such verb (did you mean submit?)\n  see: gpuctl --help\n'
    )
    assert gpuctl("frobnicate").status == 2
    assert gpuctl("--frobnicate").status == 2


def test_version_and_help(gpuctl: Gpuctl) -> None:
    assert gpuctl("--version").out == "gpuctl 0.1.0\n"
    assert gpuctl("help", "ls").out == gpuctl("ls", "--help").out
    assert gpuctl("-h").out == gpuctl("--help").out == gpuctl("help").out
    assert all(gpuctl(*argv).status == 0 for argv in (["--help"], ["ls", "-h"], ["--version"]))


def test_where_the_output_cannot_go(process: Callable[..., Any]) -> None:
    def shell(line: str) -> Result:
        from .tools import PROGRAM

        program = f'"{PROGRAM[0]}" -c "{PROGRAM[2]}"'
        return process(line.replace("GPUCTL", program), program=["sh", "-c"])

    full = shell("GPUCTL --help > /dev/full")
    assert full.status == 1
    assert full.err == "gpuctl: cannot write the output: no space left on device\n"
    assert shell("GPUCTL --help >&-").status == 0
    both = shell("GPUCTL frobnicate >&- 2>&-")
    assert (both.status, both.err) == (2, "")
