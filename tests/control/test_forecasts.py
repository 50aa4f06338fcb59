"""When jobs start, as `why` says it; and that everybody else has their turn meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from gpud.control import forecasts

from .talking import Client, Served, run


async def why(client: Client, *jobs: int) -> list[dict[str, Any]]:
    reply = await client.ask("why", jobs=jobs)
    return [
        {k: v for k, v in reason.items() if k not in ("job", "state", "reason")}
        for reason in reply["reasons"]
    ]


def time_passes(served: Served, ms: int) -> None:
    served.daemon._now_ms = itertools.count(served.daemon.now_ms() + ms)


def test_a_start_and_what_it_rests_on(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for limit_s in (600, 900, 60, 60):
                await client.submit(time_limit_s=limit_s)
            served.daemon.start(1)
            served.daemon.start(2)
            began_ms = served.daemon.state.attempts[1].started_at_ms
            third, fourth = await why(client, 3, 4)
            assert third == {
                "start_ms": began_ms + 620_000,
                "after": [1],
                "assumes": ["limits"],
            }
            assert (fourth["start_ms"], fourth["after"]) == (began_ms + 700_000, [3])
            assert await why(client, 1) == [{}]

    run(path, test)


def test_how_long_jobs_of_the_same_name_have_run(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()  # takes one of both GPUs for ever
            for job in range(2, 5):
                await client.submit(name="n")
                served.daemon.start(job)
                time_passes(served, 600_000)
                served.daemon.end(job)
            await client.submit(name="n")
            served.daemon.start(5)
            await client.submit()
            (told,) = await why(client, 6)
            assert (told["after"], told["assumes"]) == ([5], ["usual"])
            await client.submit(name="m")
            served.daemon.end(5)
            (told,) = await why(client, 7)
            assert told == {"unknown": "jobs 1 and 6 have no time limit"}

    run(path, test)


def test_what_the_reason_says_already_is_not_said_again(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(2):
                await client.submit(time_limit_s=60)
            await client.submit(held=True)
            await client.submit(after=[3], after_failed="wait")
            assert await why(client, 3, 4) == [
                {},
                {"unknown": "job 3 is held (gpuctl release 3)"},
            ]
            (held,) = await why(client, 3)
            assert held["assumes"] == ["limits", "release"]
            await client.ask("cancel", jobs=[3])
            assert await why(client, 4) == [{}]
            await client.ask("drain")
            await client.submit()
            (drained,) = await why(client, 5)
            assert drained["assumes"] == ["limits", "undrain"]
            served.daemon.state.runner_problem = "it is gone"
            assert await why(client, 5) == [{}]

    run(path, test)


def test_what_it_could_ask_for_to_start_now(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit(time_limit_s=7200)
            await client.submit(gpus=2)
            await client.submit(gpus=1)
            told = await client.ask("why", jobs=[2])
            assert told["reasons"][0]["starts_now"] == ["with 1 GPU"]
            told = await client.ask("why", jobs=[3])
            assert told["reasons"][0]["starts_now"] == ["with a time limit of 1h59m"]

    run(path, test)


def test_of_many_jobs_the_first_hundred_are_told(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(forecasts.MOST_JOBS + 10):
                await client.submit(time_limit_s=1)
            told = (await client.ask("why", jobs=["state:queued"]))["reasons"]
            assert len(told) == forecasts.MOST_JOBS + 8
            assert [reason["job"] for reason in told if "start_ms" in reason] == [*range(3, 103)]

    run(path, test)


def test_others_have_their_turn_during_a_walk(path: Path, monkeypatch: Any) -> None:
    """However long it takes; and only one walks at a time."""
    monkeypatch.setattr(forecasts, "PIECE_S", 0.0)

    async def test(served: Served) -> None:
        async with served.client() as slow, served.client() as other, served.client() as third:
            for _ in range(300):
                await slow.submit(time_limit_s=60)
            told, again = asyncio.create_task(why(slow, 300)), asyncio.create_task(why(third, 299))
            pings = 0
            while not told.done():
                assert not served.daemon.forecasting.locked() or not again.done()
                assert (await other.ask("ping"))["type"] == "pong"
                pings += 1
            assert pings > 5
            (last,), (before,) = await told, await again
            assert last["start_ms"] > 0
            assert before["start_ms"] > 0

    run(path, test)
