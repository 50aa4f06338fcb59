"""What cannot start: a clear reason, and nothing left behind."""

import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import Box, Event

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "NUL in the command": ({"argv": ["/bin/sh", "-c", "echo \0"]}, "command", "null byte"),
    "NUL in the environment": ({"env": ["A=\0"]}, "command", "null byte"),
    "environment without a name": ({"env": ["x"]}, "command", "NAME=VALUE"),
    "no command": ({"argv": []}, "command", "empty"),
    "cwd is gone": ({"cwd": "/nowhere/at/all"}, "cwd", "/nowhere/at/all does not exist"),
    "cwd is a file": ({"cwd": "/etc/passwd"}, "cwd", "/etc/passwd is not a directory"),
    "cwd is relative": ({"cwd": "here"}, "cwd", "here is not absolute"),
    "NUL in cwd": ({"cwd": "/a\0b"}, "command", "null byte"),
    "no such shell": ({"argv": ["/no/shell", "-c", "x"]}, "shell", "/no/shell does not exist"),
    "shell is a text": ({"argv": ["/etc/passwd", "x"]}, "shell", "/etc/passwd may not be"),
    "an argument over 128 KiB": ({"argv": ["/bin/sh", "-c", "x" * 200_000]}, "command", "too long"),
    "log is a directory": ({"log": "/tmp"}, "log", "the log /tmp cannot be opened"),
    "log under a file": ({"log": "/etc/passwd/x"}, "log", "is not a directory"),
    "NUL in the log": ({"log": "/tmp/\0"}, "command", "null byte"),
}


def refused(box: Box, **change: Any) -> Event:
    c = box.up()
    fds = len(os.listdir(f"/proc/{c.hello['pid']}/fd"))
    c.send(**box.job("echo", **change))
    event = c.until("not-started")
    assert c.list()[1, 1] == {"job": 1, "attempt": 1, "phase": "not-started", "pid": None}
    assert len(os.listdir(f"/proc/{c.hello['pid']}/fd")) == fds
    assert not box.descendants()
    assert not box.log().exists()
    if box.cgroup:
        assert [p.name for p in box.cgroup.iterdir() if p.is_dir()] == ["runner"]
    return event


@pytest.mark.parametrize("name", BAD)
def test_reason(box: Box, name: str) -> None:
    change, kind, why = BAD[name]
    event = refused(box, **change)
    assert (event["kind"], why in event["why"]) == (kind, True), event


def test_leaves_no_cgroup(group_box: Box) -> None:
    assert refused(group_box, cwd="/nowhere")["kind"] == "cwd"


def test_is_repeated_until_forgotten_and_never_tried_again(box: Box) -> None:
    c = box.up()
    where = box.path / "later"
    message = box.job("echo", cwd=str(where))
    c.send(**message)
    event = c.until("not-started")
    where.mkdir()
    box.kill_runner()
    c = box.up()
    assert c.until("not-started") == event
    c.send(**message)
    assert c.until("not-started") == event
    c.send(op="forget", attempts=[[1, 1]])
    assert c.list() == {}


def test_other_attempts_go_on(box: Box) -> None:
    c = box.up()
    c.send(**box.job("echo", job=1, cwd="/nowhere"))
    c.send(**box.job("exit 4", job=2))
    assert c.until("not-started", 1)["kind"] == "cwd"
    assert c.until("ended", 2)["exit"] == {"code": 4}


def test_a_fifo_as_log_does_not_hang_the_runner(box: Box) -> None:
    c = box.up()
    os.mkfifo(box.path / "fifo")
    c.send(**box.job("echo", log=str(box.path / "fifo")))
    assert c.until("not-started")["kind"] == "log"


def test_a_link_as_log_is_not_followed(box: Box) -> None:
    c = box.up()
    target = box.path / "target"
    Path(box.path / "link").symlink_to(target)
    c.send(**box.job("echo", log=str(box.path / "link")))
    assert c.until("not-started")["kind"] == "log"
    assert not target.exists()
