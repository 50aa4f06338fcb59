"""Whatever a client does: the others are answered, and nothing is done that was not asked for."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from gpud.control import link, server, session
from gpud.protocol import MAX_LINE_BYTES

from .talking import Client, Served, run, until

GOLDEN = Path(__file__).parent.parent / "protocol" / "golden" / "v1"
ROUNDS = 150


async def is_alive(served: Served) -> None:
    async with served.client() as client:
        assert (await client.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"",
        b"\0",
        b"\xff\xfe",
        b"[" * 500_000,
        b'{"id":' * 80_000,
        b'{"type":"ping","id":"one"}',
        b'{"type":"ping","id":1,"extra":1}',
        b"GET / HTTP/1.1",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_garbage_is_answered_in_words_and_the_connection_goes_on(path: Path, line: bytes) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            client.raw(line + b"\n")
            reply = await client.read()
            assert (reply["type"], reply["kind"]) == ("error", "protocol")
            assert reply["message"].startswith("cannot understand the request: ")
            assert (await client.ask("ping"))["type"] == "pong"

    run(path, test)


def test_a_request_in_pieces_is_a_request(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for byte in b'{"type":"ping","id":1}\n{"type":"pi':
                client.raw(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.read())["type"] == "pong"
            await is_alive(served)

    run(path, test)


def test_a_line_that_is_too_long_ends_the_connection_with_a_word(path: Path) -> None:
    async def test(served: Served) -> None:
        for end in (b"", b"\n"):
            async with served.client() as client:
                client.send("ping")
                client.raw(b"x" * (MAX_LINE_BYTES + 1) + end)
                assert (await client.read())["type"] == "pong"
                assert (await client.read())["message"] == (
                    "cannot read the request: a line is longer than 1048576 bytes"
                )
                assert await client.read() is None
        await is_alive(served)

    run(path, test)


def test_the_longest_line_is_taken(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            request = {"type": "submit", "id": 1, "job": {"command": ""}}
            room = MAX_LINE_BYTES - len(json.dumps(request))
            await client.submit("x" * (room - 100))

    run(path, test)


def test_input_that_ends_is_answered_to_the_end(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            sent = [client.send("ping") for _ in range(5)]
            client.send("follow")
            client.raw(b'{"type":"submit","id":9,"job":{"comm')
            client.writer.write_eof()
            found = []
            while (reply := await client.read()) is not None:
                found.append(reply["id"])
            assert [number for number in found if number in sent] == sent
        assert served.daemon.asked == []

    run(path, test)


def test_two_hundred_clients_at_once(path: Path) -> None:
    async def talk(served: Served) -> int:
        async with served.client() as client:
            assert (await client.ask("ping"))["type"] == "pong"
            job = await client.submit(held=True)
            assert (await client.ask("why", jobs=[job]))["reasons"][0]["job"] == job
            return job

    async def test(served: Served) -> None:
        jobs = await asyncio.gather(*(talk(served) for _ in range(200)))
        assert sorted(jobs) == list(range(1, 201))

    run(path, test)


def test_more_clients_than_there_is_room_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CLIENTS", 3)

    async def test(served: Served) -> None:
        async with served.client(), served.client(), served.client() as third:
            async with served.client() as fourth:
                assert fourth.greeting["message"] == "cannot talk to gpud: 3 clients are connected"
                assert await fourth.read() is None
            assert (await third.ask("ping"))["type"] == "pong"
        await until(lambda: not served.server._sessions)
        await is_alive(served)

    run(path, test)


def test_who_asks_and_never_reads_is_not_read_from(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_BACKLOG", 10_000)

    async def test(served: Served) -> None:
        async with served.client() as client, served.client() as other:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            ask = b'{"type":"status","id":1}\n'
            while client.writer.transport.get_write_buffer_size() < 1 << 20:
                client.raw(ask * 1000)
                assert (await other.ask("ping"))["type"] == "pong"
            # Now both directions are full; what the server holds of it is bounded.
            (stuck,) = (s for s in served.server._sessions if not s._link.writable)
            await until(lambda: not stuck._reading)
            assert stuck._transport.get_write_buffer_size() < link.HIGH_WATER + 10_000
            assert stuck._backlog < 10_000 + (1 << 18)
            # It is not dropped: once it reads, it is answered.
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(2000):
                assert (await client.read())["type"] == "status"
            client.writer.transport.abort()

    run(path, test)


def test_unsent_answers_have_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_UNSENT", 1 << 20)

    async def test(served: Served) -> None:
        async with served.client() as setup:
            number = setup.send("submit", count=20_000)
            setup.raw(b'{"command":"a","held":true}\n' * 20_000)
            await setup.read_reply(number)
        async with served.client() as client:
            for _ in range(3):  # each is answered with more than a megabyte, all at once
                client.send("wait", jobs=["all"])
            await until(lambda: len(served.daemon.listeners) == 3)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            async with served.client() as other:
                await other.ask("cancel", jobs=["all"])
            await until(lambda: bool(served.warnings))
            assert served.warnings[0][1]["why"] == "it does not read its answers"

    run(path, test)


def test_a_flood_of_small_requests_keeps_nobody_waiting(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as flood, served.client() as other:
            flood.raw(b'{"type":"status","id":1}\n' * 5000)
            before = 0
            assert (await other.ask("ping"))["type"] == "pong"
            while not flood.reader.at_eof() and before < 5000:
                assert (await flood.read())["type"] == "status"
                before += 1

    run(path, test)


async def misbehave(client: Client, rng: random.Random, golden: list[bytes]) -> None:
    for _ in range(rng.randrange(1, 8)):
        line = bytearray(rng.choice(golden))
        for _ in range(rng.randrange(0, 4)):
            start = rng.randrange(len(line) + 1)
            line[start : start + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        if rng.random() < 0.2:
            line = bytearray(rng.randbytes(rng.randrange(300)))
        client.raw(bytes(line))
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    if rng.random() < 0.3:
        client.writer.transport.abort()
    elif rng.random() < 0.5:
        client.writer.write_eof()


@pytest.mark.parametrize("seed", range(4))
def test_the_server_survives_whatever_is_sent(path: Path, seed: int) -> None:
    """No bug reaches the loop's exception handler (`serve` looks), and others are answered."""
    rng = random.Random(seed)
    golden = [file.read_bytes() for file in sorted(GOLDEN.glob("request.*"))]

    async def test(served: Served) -> None:
        async with served.client() as other:
            for _ in range(ROUNDS):
                async with served.client() as client:
                    await misbehave(client, rng, golden)
                    assert (await other.ask("ping"))["type"] == "pong"
            assert (await other.ask("status"))["type"] == "status"
        await until(lambda: not served.server._sessions)

    run(path, test)
