"""What systemd hears: real datagrams on real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpud.daemon import systemd


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """(what systemd listens on, NOTIFY_SOCKET)"""
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        address = f"@gpud-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        sock.settimeout(5)
        yield sock, address


def test_messages_arrive(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    environ = {"NOTIFY_SOCKET": address}
    assert systemd.notify("READY=1", environ=environ)
    assert sock.recv(4096) == b"READY=1"
    assert systemd.notify("STATUS=2 jobs\nrun", environ=environ)
    assert sock.recv(4096) == b"STATUS=2 jobs run"
    before_us = time.monotonic_ns() // 1000
    assert systemd.notify_reloading(environ=environ)
    reloading, at = sock.recv(4096).decode().split("\n")
    assert reloading == "RELOADING=1"
    name, value = at.split("=")
    assert name == "MONOTONIC_USEC"
    assert before_us <= int(value) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "x"}, {"NOTIFY_SOCKET": "/nobody"}]
)
def test_where_nobody_listens_nothing_happens(environ: dict[str, str]) -> None:
    assert systemd.notify("READY=1", environ=environ) is False
    assert systemd.notify("READY=1", environ={"NOTIFY_SOCKET": "/" + "x" * 200}) is False


def test_a_manager_that_does_not_read_never_blocks_us(manager: tuple[socket.socket, str]) -> None:
    _, address = manager
    environ = {"NOTIFY_SOCKET": address}
    told = 0
    while systemd.notify("STATUS=" + "x" * 1000, environ=environ):
        told += 1
        assert told < 100_000
    assert told > 0


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdogs_interval(environ: dict[str, str], interval_s: float | None) -> None:
    assert systemd.watchdog_interval_s(environ) == interval_s


def test_the_watchdog_hears_a_loop_that_turns(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    sock.setblocking(False)
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        watchdog = systemd.start_watchdog(loop, environ)
        assert watchdog is not None
        for _ in range(3):
            assert await asyncio.wait_for(loop.sock_recv(sock, 4096), 5) == b"WATCHDOG=1"
        watchdog.cancel()
        assert systemd.start_watchdog(loop, {}) is None

    asyncio.run(serve())
