"""`follow`: every event once, in order, without a gap between the past and the present."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gpud.control import following

from .talking import Client, Served, run, until


async def events(client: Client, number: int, count: int) -> list[dict[str, Any]]:
    """The next `count` events of a follow."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = await client.read_reply(number)
        assert line["type"] == "event", line
        found.append(line["event"])
    return found


def test_from_now_on(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            reply = await client.ask("follow")
            assert reply == {"type": "following", "id": 2, "since": served.daemon.store.last_seq()}
            served.daemon.start(1)
            served.daemon.end(1)
            kinds = [event["kind"] for event in await events(client, 2, 2)]
            assert kinds == ["started", "ended"]

    run(path, test)


def test_the_past_and_then_the_present(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAGE", 10)

    async def test(served: Served) -> None:
        served.daemon.chatter(95)
        async with served.client() as client:
            number = client.send("follow", since=5)
            assert (await client.read_reply(number))["since"] == 5
            for size in (1, 3, 9, 10, 11, 25, 1):  # while it reads its pages, and after
                served.daemon.chatter(size)
                await asyncio.sleep(0)
            found = await events(client, number, 90 + 60)
            assert [event["seq"] for event in found] == list(range(6, 156))
            await until(lambda: bool(served.daemon.listeners))
            served.daemon.chatter(2)
            assert [event["seq"] for event in await events(client, number, 2)] == [156, 157]

    run(path, test)


@pytest.mark.parametrize("turns", range(10))
def test_no_gap_and_no_duplicate_whenever_events_come(
    path: Path, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PAGE", 4)

    async def test(served: Served) -> None:
        served.daemon.chatter(9)
        async with served.client() as client:
            number = client.send("follow", since=0)
            for _ in range(turns):
                await asyncio.sleep(0)
            served.daemon.chatter(1)
            served.daemon.chatter(7)
            assert (await client.read_reply(number))["type"] == "following"
            found = await events(client, number, 17)
            assert [event["seq"] for event in found] == list(range(1, 18))
            assert (await client.ask("ping"))["type"] == "pong"

    run(path, test)


def test_only_some_jobs_until_they_are_done(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client, served.client() as other:
            for _ in range(4):
                await client.submit()
            served.daemon.end(2)
            number = client.send("follow", since=0, jobs=[1, 3], until_done=True)
            assert (await client.read_reply(number))["type"] == "following"
            served.daemon.start(1)
            served.daemon.end(1)
            assert (await other.ask("ping"))["type"] == "pong"
            served.daemon.start(3)
            served.daemon.end(3, 1)
            found: list[tuple[int, str]] = []
            while (line := await client.read_reply(number))["type"] == "event":
                found.append((line["event"]["job"], line["event"]["kind"]))
            assert line == {"type": "end", "id": number}
            assert [kind for job, kind in found if job == 1] == [
                "submitted", "dispatched", "started", "ended"
            ]  # fmt: skip
            assert found[-1] == (3, "ended")
            assert {job for job, _ in found} == {1, 3}
            assert served.daemon.listeners == []

    run(path, test)


def test_until_done_of_what_is_done_ends_after_its_history(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            served.daemon.end(1)
            number = client.send("follow", since=0, jobs=[1], until_done=True)
            lines = [await client.read_reply(number) for _ in range(5)]
            assert [line["type"] for line in lines] == ["following", *["event"] * 3, "end"]
            number = client.send("follow", jobs=[1], until_done=True)
            lines = [await client.read_reply(number) for _ in range(2)]
            assert [line["type"] for line in lines] == ["following", "end"]

    run(path, test)


def test_the_events_of_a_bulk_submit_belong_to_each_of_its_jobs(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            number = client.send("submit", count=10)
            client.raw(b'{"command":"a","held":true}\n' * 10)
            await client.read_reply(number)
            number = client.send("follow", since=0, jobs=[7])
            assert (await client.read_reply(number))["type"] == "following"
            (event,) = await events(client, number, 1)
            assert (event["kind"], event["job"], event["count"]) == ("submitted", 1, 10)

    run(path, test)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({"jobs": [9]}, "not-found"), ({"until_done": True}, "usage"), ({"jobs": [2**70]}, "usage")],
)
def test_what_cannot_be_followed(path: Path, fields: dict[str, Any], kind: str) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("follow", **fields)
            assert (reply["type"], reply["kind"]) == ("error", kind)

    run(path, test)


@pytest.mark.parametrize(("since", "found"), [(-5, 0), (10**30, 3)])
def test_since_is_put_within_what_there_is(path: Path, since: int, found: int) -> None:
    async def test(served: Served) -> None:
        served.daemon.chatter(3)
        async with served.client() as client:
            assert (await client.ask("follow", since=since))["since"] == found

    run(path, test)


def test_a_slow_reader_falls_behind_and_misses_nothing(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            number = client.send("follow")
            assert (await client.read_reply(number))["type"] == "following"
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(40):
                served.daemon.chatter(400)
                await asyncio.sleep(0)
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            found = await events(client, number, 16_000)
            assert [event["seq"] for event in found] == list(range(1, 16_001))
            assert served.warnings == []

    run(path, test)


@pytest.mark.slow
def test_who_follows_and_never_reads_is_dropped_and_nobody_notices(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STALL_S", 0.0)

    async def test(served: Served) -> None:
        async with served.client() as client, served.client() as other, served.client() as past:
            number = client.send("follow")
            assert (await client.read_reply(number))["type"] == "following"
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                served.daemon.chatter(1_000)
                assert (await other.ask("ping"))["type"] == "pong"
            assert [event for event, _ in served.warnings] == ["client_dropped"]
            assert served.daemon.listeners == []
            # One that reads finds all of the 100,000.
            number = past.send("follow", since=0)
            assert (await past.read_reply(number))["since"] == 0
            found = await events(past, number, 100_000)
            assert [event["seq"] for event in found] == list(range(1, 100_001))

    run(path, test)
