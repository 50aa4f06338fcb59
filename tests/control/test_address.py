"""Where the server listens, what it does not touch, and who is let in."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpud.control.server import ControlServer
from gpud.errors import GpudError

from .fake_daemon import FakeDaemon
from .talking import PATIENCE_S, Served, run, serve


def refused(path: Path) -> GpudError:
    """The error of a server that is to listen there."""

    async def main() -> None:
        daemon = FakeDaemon()
        try:
            await ControlServer(daemon, path).start()
        finally:
            daemon.store.close()

    with pytest.raises(GpudError) as caught:
        asyncio.run(main())
    return caught.value


def test_the_socket_is_its_owners_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "run" / "gpud.sock"

    async def test(served: Served) -> None:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        async with served.client() as client:
            assert (await client.ask("ping"))["type"] == "pong"

    run(path, test)
    assert list(path.parent.iterdir()) == []


def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))

    async def test(served: Served) -> None:
        async with served.client() as client:
            assert (await client.ask("ping"))["type"] == "pong"

    run(path, test)


def test_another_gpud_is_not_disturbed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(0)
        assert refused(path).message == f"cannot listen on {path}: another gpud listens there"
        # The first look still stands in its backlog, which is full now.
        assert refused(path).message == f"cannot listen on {path}: another gpud listens there"
    assert path.exists()


def test_what_is_not_a_socket_is_not_removed(path: Path) -> None:
    path.write_text("precious")
    error = refused(path)
    assert error.message == f"cannot listen on {path}: something that is not a socket is there"
    assert error.hint
    assert path.read_text() == "precious"


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refused(tmp_path / "file" / "gpud.sock")
    assert error.message.endswith(f"gpud.sock: {tmp_path / 'file'} is not a directory")


def test_a_socket_that_took_our_place_stays(path: Path) -> None:
    async def test(served: Served) -> None:
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))

    run(path, test)
    assert path.is_socket()


def test_a_socket_that_was_taken_away_is_no_trouble(path: Path) -> None:
    async def test(served: Served) -> None:
        os.unlink(path)

    run(path, test)
    assert not path.exists()


@pytest.mark.parametrize("length", [106, 107, 108, 300, 1500])
def test_a_path_of_any_length(tmp_path: Path, length: int) -> None:
    directory = tmp_path
    while len(str(directory)) < length - 120:
        directory = directory / ("d" * 100)
    path = directory / ("s" * (length - len(str(directory)) - 1))
    if len(path.name) > 85:
        path = directory / ("d" * (len(path.name) - 11)) / ("s" * 10)
    assert len(str(path)) == length

    async def test(served: Served) -> None:
        async with served.client() as client:
            assert (await client.ask("ping"))["type"] == "pong"

    run(path, test)
    assert not path.exists()


def test_a_name_that_is_too_long_is_said_to_be(tmp_path: Path) -> None:
    assert refused(tmp_path / ("x" * 150)).message.endswith("x: the path is too long")


KNOCK = """
import json, os, socket, sys
os.setgid(65534); os.setuid(65534)
door = socket.socket(socket.AF_UNIX)
door.connect(sys.argv[1])
try:
    door.sendall(b'{"type":"submit","id":1,"job":{"command":"x"}}' + bytes([10]))
except BrokenPipeError:
    pass  # turned away already; why is there to read
print(door.makefile().readline(), end="")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_nobody_else_is_let_in(path: Path) -> None:
    async def main() -> str:
        async with asyncio.timeout(PATIENCE_S), serve(path) as served:
            for part in (path, *path.parents[:4]):
                os.chmod(part, 0o666 if part == path else 0o755)
            knock = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", KNOCK, str(path), stdout=subprocess.PIPE
            )
            out, _ = await knock.communicate()
            assert served.daemon.asked == []
            assert [event for event, _ in served.warnings] == ["client_refused"]
            return out.decode()

    assert json.loads(asyncio.run(main())) == {
        "type": "error",
        "id": 0,
        "kind": "refused",
        "message": "cannot talk to the gpud of user 0: you are user 65534",
        "hint": "",
    }


def test_close_ends_all_connections_and_can_be_called_twice(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as idle, served.client() as busy:
            served.daemon.gate = asyncio.Event()
            busy.send("submit", job={"command": "a"})
            busy.send("follow")
            await idle.ask("follow")
            await served.server.close()
            await served.server.close()
            assert await idle.read() is None
            assert await busy.read() is None

    run(path, test)
