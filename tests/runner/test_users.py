"""Another user's job: that user's own rights decide."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Box, Client, own_group

NOBODY = 65534
USER = {"uid": NOBODY, "gid": NOBODY, "groups": [NOBODY, 12345]}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's job")


@pytest.fixture(params=["session", "cgroup"])
def client(request: pytest.FixtureRequest, open_path: Path) -> Iterator[tuple[Box, Client]]:
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(own_group()) if request.param == "cgroup" else None
        box = Box(open_path / "state", group)
        stack.callback(box.tear_down)
        yield box, box.up()


def make(box: Box, name: str, owner: int, mode: int) -> str:
    path = box.path / name
    path.mkdir()
    os.chown(path, owner, owner)
    path.chmod(mode)
    return str(path)


def run(box: Box, c: Client, script: str, cwd: str, **more: Any) -> dict[str, Any]:
    c.send(**box.job(script, cwd=cwd, user=USER, **more))
    c.until("started")
    return c.until("ended")


def test_it_runs_as_that_user_in_a_directory_only_they_may_enter(
    client: tuple[Box, Client],
) -> None:
    box, c = client
    home = make(box, "home", NOBODY, 0o700)
    script = (
        'id -u; id -g; id -G; umask; pwd; echo "$PWD"; ls /proc/$$/fd; echo err >&2; echo > new'
    )
    ended = run(box, c, script, home, umask=0o077)
    assert ended["exit"] == {"code": 0}
    lines = box.log().read_text().split("\n")
    assert lines == ["65534", "65534", "65534 12345", "0077", home, home, "0", "1", "2", "err", ""]
    assert (box.path / "home" / "new").stat().st_uid == NOBODY
    assert box.log().stat().st_uid == NOBODY


def test_a_directory_they_may_not_enter(client: tuple[Box, Client]) -> None:
    box, c = client
    cwd = make(box, "private", 0, 0o700)
    fds = len(os.listdir(f"/proc/{c.hello['pid']}/fd"))
    c.send(**box.job("echo", cwd=cwd, user=USER))
    event = c.read()
    assert event is not None
    assert (event["ev"], event["kind"]) == ("not-started", "cwd")
    assert cwd in event["why"]
    assert "may not enter" in event["why"]
    c.nothing_more()
    assert not box.descendants()
    assert not box.log().exists()
    assert len(os.listdir(f"/proc/{c.hello['pid']}/fd")) == fds
    box.kill_runner()
    c = box.up()
    assert c.until("not-started") == event


@pytest.mark.parametrize("shell", ["/nowhere/sh", "/etc/passwd", "no-such-program"])
def test_a_shell_they_may_not_execute(client: tuple[Box, Client], shell: str) -> None:
    box, c = client
    c.send(**box.job("", cwd="/", user=USER, argv=[shell, "-c", "echo"]))
    event = c.until("not-started")
    assert (event["kind"], shell in event["why"]) == ("shell", True)


def test_exact_exit_and_the_whole_payload(client: tuple[Box, Client]) -> None:
    box, c = client
    assert run(box, c, "exit 3", "/")["exit"] == {"code": 3}
    box.start(c, "setsid sleep 1000 & exit 4", job=2, user=USER, cwd="/", linger_s=0.1)
    ended = c.until("ended", 2)
    assert (ended["exit"], len(ended["killed"])) == ({"code": 4}, 1)


def test_its_log_through_a_missing_directory(client: tuple[Box, Client]) -> None:
    box, c = client
    run(box, c, "echo here", "/", log=str(box.path / "a" / "b" / "x.log"))
    assert (box.path / "a" / "b" / "x.log").read_text() == "here\n"
