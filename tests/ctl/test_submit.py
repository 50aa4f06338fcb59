"""What a submit says to the daemon, and what it prints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpud.client import patience
from gpud.environment import capture
from gpud.errors import GpudError
from gpud.protocol.replies import Submitted
from gpud.protocol.requests import JobFields, Submit
from gpud.protocol.text import Raw, to_bytes

from .fake_server import DROP, FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]


@pytest.fixture(autouse=True)
def taken(server: FakeServer) -> None:
    server.answers = {
        Submit: lambda request, lines=(): Submitted(id=0, first=42, count=len(lines) or 1)
    }


def job(server: FakeServer) -> JobFields:
    (request,) = server.asked(Submit)
    return request.job


@pytest.mark.parametrize(
    ("words", "command", "argv"),
    [
        (["python train.py > log"], "python train.py > log", None),
        (["ls"], "ls", None),
        (["python", "train.py", "a b"], None, ("python", "train.py", "a b")),
        (["--", "python train.py"], None, ("python train.py",)),
        (["--", "-"], None, ("-",)),
        (["python", "--gpus", "2"], None, ("python", "--gpus", "2")),
        (["--gpus", "2", "--", "python", "--", "x"], None, ("python", "--", "x")),
    ],
)
def test_what_a_command_is(
    server: FakeServer, gpuctl: Gpuctl, words: list[str], command: str, argv: tuple[str, ...]
) -> None:
    result = gpuctl("submit", *words)
    assert (result.status, result.out, result.err) == (0, "42\n", "")
    sent = job(server)
    assert (sent.command or None, sent.argv or None) == (command, argv)


def test_what_is_captured(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SECRET", "x")
    before = os.umask(0o027)
    try:
        gpuctl("submit", "true")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    sent = job(server)
    assert sent.cwd == str(tmp_path)
    assert sent.umask == 0o027
    assert [to_bytes(pair) for pair in sent.env] == capture(os.environb)
    assert "SECRET=x" in sent.env
    assert not any(str(pair).startswith(("CUDA_VISIBLE", "GPUD_")) for pair in sent.env)


def test_only_what_was_said_is_sent(server: FakeServer, gpuctl: Gpuctl) -> None:
    gpuctl("submit", "true")
    sent = {k for k in JobFields.__struct_fields__ if getattr(job(server), k) is not job_unset()}
    assert sent == {"command", "cwd", "env", "umask"}


def job_unset() -> Any:
    import msgspec

    return msgspec.UNSET


def test_every_option(server: FakeServer, gpuctl: Gpuctl) -> None:
    gpuctl(
        "submit", "--name", "big", "--gpus=0", "--priority", "-5", "--cwd", "/data", "--env", "A=1",
        "--env", "B=x=y", "--key", "k1", "--retries", "3", "--retry-args", "--resume",
        "--time-limit", "2h30m", "--grace", "90", "--checkpoint", "usr1", "--hold", "true",
    )  # fmt: skip
    sent = job(server)
    assert (sent.name, sent.gpus, sent.priority, sent.cwd) == ("big", 0, -5, "/data")
    assert (sent.env_add, sent.retries, sent.retry_args) == (("A=1", "B=x=y"), 3, "--resume")
    assert (sent.time_limit_s, sent.grace_s, sent.held) == (9000.0, 90.0, True)
    assert sent.checkpoint == 10
    assert server.asked(Submit)[0].key == "k1"


def test_a_directory_that_is_not_absolute(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    gpuctl("submit", "--cwd", "runs/1", "true")
    assert job(server).cwd == f"{tmp_path}/runs/1"


def test_a_directory_that_is_gone(
    gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = gpuctl("submit", "true")
    assert result.status == 2
    assert "cannot submit: the current directory does not exist any more" in result.err
    assert gpuctl("submit", "--cwd", "/", "true").status == 0


def test_bytes_that_are_not_utf8(server: FakeServer, process: Callable[..., Any]) -> None:
    assert process("submit", os.fsdecode(b"echo \xff"), ODD=os.fsdecode(b"\xfe")).status == 0
    assert job(server).command == Raw("ZWNobyD/")
    assert b"ODD=\xfe" in [to_bytes(pair) for pair in job(server).env]
    refused = process("submit", "--name", os.fsdecode(b"\xff"), "true")
    assert refused.status == 2
    assert "it is not UTF-8" in refused.err


def test_many_from_standard_input(server: FakeServer, process: Callable[..., Any]) -> None:
    lines = (
        b"# a sweep\r\n\r\n  python a.py\\\r\n\npython b.py \xff # not a comment\n \t\necho last"
    )
    result = process("submit", "--gpus", "2", "-", stdin=lines)
    assert (result.status, result.out) == (0, "42\n43\n44\n")
    assert [to_bytes(one.command) for one in server.jobs] == [
        b"  python a.py\\\n", b"python b.py \xff # not a comment", b"echo last",
    ]  # fmt: skip
    (request,) = server.asked(Submit)
    assert (request.count, request.common.gpus, request.job) == (3, 2, None)


def test_many_from_a_file(server: FakeServer, gpuctl: Gpuctl, tmp_path: Path) -> None:
    file = tmp_path / "commands.txt"
    file.write_text("".join(f"echo {n}\n" for n in range(5000)))
    result = gpuctl("submit", "--file", str(file))
    assert result.out.split() == [str(n) for n in range(42, 5042)]
    assert len(server.jobs) == 5000


def test_a_file_that_cannot_be_read_or_says_nothing(gpuctl: Gpuctl, tmp_path: Path) -> None:
    missing = gpuctl("submit", "--file", f"{tmp_path}/x")
    assert missing.status == 1
    assert missing.err == f"gpuctl: cannot read {tmp_path}/x: no such file or directory\n"
    (tmp_path / "y").write_text("# nothing\n\n")
    empty = gpuctl("submit", "--file", f"{tmp_path}/y")
    assert empty.status == 1
    assert empty.err == f"gpuctl: cannot submit: there is no command in {tmp_path}/y\n"


@pytest.mark.parametrize("words", [["sleep 1", "sleep 2"], ["--", "sleep 1", "sleep 2"]])
def test_two_command_lines_are_not_a_program(
    server: FakeServer, gpuctl: Gpuctl, words: list[str]
) -> None:
    result = gpuctl("submit", *words)
    assert result.status == 2
    assert result.err == (
        'gpuctl: cannot submit: there is no program "sleep 1"\n'
        "  several words are one program and its arguments; for a shell command write one word; "
        "for many, one a line: gpuctl submit -\n"
    )
    assert server.requests == []


def test_a_program_with_a_blank_in_its_name(
    gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "my prog").touch()
    monkeypatch.chdir(tmp_path)
    for words in (["bin/my prog", "x"], ["--cwd", "bin", "./my prog", "x"]):
        assert gpuctl("submit", *words).status == 0
    assert gpuctl("submit", "my prog", "x").status == 2
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}/bin")
    assert gpuctl("submit", "my prog", "x").status == 0


def test_a_line_that_is_too_long(server: FakeServer, gpuctl: Gpuctl, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("true\n" + "x" * (1 << 20) + "\n")
    result = gpuctl("submit", "--file", f"{tmp_path}/x")
    assert result.status == 2
    assert "gpud reads lines of 1048576" in result.err
    assert server.requests == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "cannot submit: no command"),
        (["--hold"], "cannot submit: no command"),
        ([" "], "cannot submit: the command is empty"),
        (["--file", "x", "ls"], "cannot submit: a command and --file exclude each other"),
        (["--env", "A", "ls"], "cannot submit: --env: write NAME=VALUE"),
        (["--env", "=A", "ls"], "cannot submit: --env: write NAME=VALUE"),
        (
            ["--gpus", "two", "ls"],
            'cannot submit: --gpus "two": it takes a whole number, or a share',
        ),
        (["--time-limit", "soon", "ls"], 'cannot submit: --time-limit "soon": that is no duration'),
        (
            ["--checkpoint", "SIGKILL", "ls"],
            'cannot submit: --checkpoint "SIGKILL": it takes a signal that a program can catch',
        ),
        (["--gpu", "2", "ls"], "cannot submit: no such option: --gpu (did you mean --gpus?)"),
    ],
)
def test_what_is_wrong(gpuctl: Gpuctl, argv: list[str], message: str) -> None:
    result = gpuctl("submit", *argv)
    assert result.status == 2
    assert result.err.startswith(f"gpuctl: {message}")


def test_a_fresh_key_each_time(server: FakeServer, gpuctl: Gpuctl) -> None:
    gpuctl("submit", "true")
    gpuctl("submit", "true")
    keys = {request.key for request in server.asked(Submit)}
    assert len(keys) == 2
    assert all(len(key) == 24 for key in keys)


def test_a_lost_connection_is_repeated_with_the_same_key(
    server: FakeServer, gpuctl: Gpuctl
) -> None:
    answers = iter([DROP, Submitted(id=0, first=42, count=1, again=True)])
    server.answers[Submit] = lambda _: next(answers)
    assert gpuctl("submit", "true").out == "42\n"
    first, second = server.asked(Submit)
    assert first == second


def test_what_is_refused_at_the_second_try_is_refused(server: FakeServer, gpuctl: Gpuctl) -> None:
    answers = iter([DROP, GpudError("cannot submit: no", kind="refused")])
    server.answers[Submit] = lambda _: next(answers)
    result = gpuctl("submit", "true")
    assert (result.status, result.err) == (1, "gpuctl: cannot submit: no\n")


def test_a_daemon_that_does_not_come_back(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RESTART_WITHIN_S", 0.1)

    def die(_: Submit) -> object:
        server.path.unlink()
        return DROP

    server.answers[Submit] = die
    result = gpuctl("submit", "true")
    assert result.status == 4
    key = server.asked(Submit)[0].key
    assert "whether the submit was taken is not known" in result.err
    assert f"  to repeat it safely when gpud is back, add: --key {key}\n" in result.err


def test_json(gpuctl: Gpuctl) -> None:
    assert json.loads(gpuctl("submit", "--json", "true").out) == {
        "first": 42, "count": 1, "again": False,
    }  # fmt: skip


def test_on_a_terminal_it_is_said_in_words(
    server: FakeServer, terminal: Callable[..., Any], tmp_path: Path
) -> None:
    assert terminal("submit", "true").out == "job 42 queued\n"
    assert terminal("submit", "--hold", "true").out == "job 42 held\n"
    (tmp_path / "x").write_text("a\nb\nc\n")
    assert terminal("submit", "--file", f"{tmp_path}/x").out == "jobs 42-44 queued (3)\n"
    server.answers[Submit] = Submitted(id=0, first=7, count=1, again=True)
    assert terminal("submit", "--key", "k", "true").out == 'job 7: there already, by the key "k"\n'
