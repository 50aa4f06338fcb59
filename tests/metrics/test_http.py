"""The HTTP server over real sockets: scrapers are answered, everybody else is harmless."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from gpud.metrics.http import MAX_CLIENTS, MAX_HEAD, MetricsServer

TEXT = '# TYPE x gauge\nx{gpu="ü"} 1\n# EOF\n'
Port = int


def play(
    scenario: Callable[[Port], Awaitable[None]],
    text: Callable[[], str] = lambda: TEXT,
    client_s: float = 10.0,
) -> list[dict[str, object]]:
    """Bugs that the server has told the loop of."""
    bugs: list[dict[str, object]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: bugs.append(about))
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        serving = asyncio.create_task(MetricsServer(text, client_s=client_s).serve(listener))
        try:
            async with asyncio.timeout(20):
                await scenario(port)
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    asyncio.run(main())
    return bugs


async def send(port: Port, request: bytes, *, eof: bool = False) -> bytes:
    """All that is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        if eof:
            writer.write_eof()
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def parts(answer: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return status, dict(field.split(": ", 1) for field in fields), body


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n"


def test_a_scraper_gets_the_page() -> None:
    async def scenario(port: Port) -> None:
        status, fields, body = parts(await send(port, GET))
        assert status == "HTTP/1.1 200 OK"
        assert body == TEXT.encode()
        assert int(fields["Content-Length"]) == len(body)
        kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert fields["Content-Type"] == kind
        assert fields["Connection"] == "close"

    assert not play(scenario)


def test_head_is_the_same_without_the_page() -> None:
    async def scenario(port: Port) -> None:
        _, fields, _ = parts(await send(port, GET))
        status, again, body = parts(await send(port, GET.replace(b"GET", b"HEAD")))
        assert (status, again, body) == ("HTTP/1.1 200 OK", fields, b"")

    assert not play(scenario)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics?x=1 HTTP/1.0", 200),
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/ HTTP/1.1", 404),
        (b"GET /../etc/passwd HTTP/1.1", 404),
        (b"HEAD /x HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 405),
        (b"DELETE /metrics HTTP/1.1", 405),
        (b"GET /metrics", 400),
        (b"GET /metrics SPDY/3", 400),
        (b"", 400),
        (b"\xff\x00\xfe \x01 \x02", 400),
        (b'{"type":"submit","id":1}', 400),
    ],
)
def test_other_requests(request_line: bytes, status: int) -> None:
    async def scenario(port: Port) -> None:
        answer, fields, body = parts(await send(port, request_line + b"\r\n\r\n"))
        assert answer.startswith(f"HTTP/1.1 {status} ")
        if request_line.startswith(b"HEAD"):
            assert body == b""
        elif status != 200:
            assert len(body) == int(fields["Content-Length"])
            assert body.count(b"\n") == 1
        assert ("Allow" in fields) == (status == 405)

    assert not play(scenario)


def test_a_request_without_end_is_cut_off() -> None:
    async def scenario(port: Port) -> None:
        answer = await send(port, b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * 3 * MAX_HEAD)
        assert answer == b"" or parts(answer)[0].startswith("HTTP/1.1 431 ")
        assert parts(await send(port, GET))[0] == "HTTP/1.1 200 OK"

    assert not play(scenario)


def test_who_leaves_in_the_middle_is_not_missed() -> None:
    async def scenario(port: Port) -> None:
        for beginning in (b"", b"G", GET[:-2]):
            assert await send(port, beginning, eof=True) == b""
        assert parts(await send(port, GET))[0] == "HTTP/1.1 200 OK"

    assert not play(scenario)


def test_who_says_nothing_or_reads_nothing_is_cut_off() -> None:
    """More than what the kernel keeps for a client that does not read."""
    large = "# " + "x" * (16 << 20) + "\n# EOF\n"

    async def scenario(port: Port) -> None:
        silent, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await silent.read() == b""
        writer.close()
        idle, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET)
        await asyncio.sleep(0.6)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionResetError):
            assert len(await idle.read()) < len(large)
        writer.close()

    assert not play(scenario, lambda: large, client_s=0.3)


def test_no_more_than_some_at_a_time() -> None:
    async def scenario(port: Port) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CLIENTS)]
        for _, writer in held:
            writer.write(b"GET ")
            await writer.drain()
        while (await send(port, GET)) != b"":
            pass  # it has not met all of them yet
        held[0][1].close()
        await held[0][1].wait_closed()
        while (await send(port, GET)) == b"":
            pass
        for reader, writer in held[1:]:
            writer.write(b"/metrics HTTP/1.1\r\n\r\n")
            assert parts(await reader.read())[0] == "HTTP/1.1 200 OK"
            writer.close()

    assert not play(scenario)


def test_many_at_once_are_all_answered() -> None:
    async def scenario(port: Port) -> None:
        for _ in range(5):
            answers = await asyncio.gather(*(send(port, GET) for _ in range(MAX_CLIENTS)))
            assert {parts(answer)[0] for answer in answers} == {"HTTP/1.1 200 OK"}

    assert not play(scenario)


def test_a_bug_is_told_to_the_loop_and_to_the_client() -> None:
    async def scenario(port: Port) -> None:
        assert parts(await send(port, GET))[0].startswith("HTTP/1.1 500 ")

    [about] = play(scenario, lambda: str(1 // 0))
    assert isinstance(about["exception"], ZeroDivisionError)


def test_when_it_ends_so_do_its_connections() -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = MetricsServer(lambda: TEXT, client_s=600)
        serving = asyncio.create_task(server.serve(listener))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET")
        await asyncio.sleep(0.05)
        serving.cancel()
        await asyncio.wait({serving}, timeout=10)
        assert serving.cancelled()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError):  # noqa: PT011
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(main())
