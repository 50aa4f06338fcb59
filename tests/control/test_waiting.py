"""`wait`: answered when all are done, not before; no lost wake-up, nobody else kept waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.control import queries
from gpud.control.waiting import touched
from gpud.protocol.replies import EventView

from .fake_daemon import FakeDaemon
from .talking import Served, run, until


def test_jobs_that_are_done_already(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(2):
                await client.submit()
            served.daemon.end(1)
            served.daemon.end(2, 3)
            assert await client.ask("wait", jobs=["all"]) == {
                "type": "waited",
                "id": 3,
                "jobs": [
                    {"job": 1, "outcome": "succeeded", "exit_code": 0, "signal": None},
                    {"job": 2, "outcome": "failed", "exit_code": 3, "signal": None},
                ],
            }
            assert (await client.ask("wait", jobs=["state:queued"]))["jobs"] == []

    run(path, test)


def test_it_waits_for_the_last_and_keeps_nobody_waiting(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(3):
                await client.submit()
            waiting = client.send("wait", jobs=["1-3"])
            for job in (2, 1, 3):
                assert (await client.ask("ping"))["type"] == "pong"
                assert await client.submit(held=True) > 3
                served.daemon.end(job, job)
            reply = await client.read_reply(waiting)
            assert [end["exit_code"] for end in reply["jobs"]] == [1, 2, 3]

    run(path, test)


def test_a_job_that_is_retried_is_waited_for_again(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            await client.submit()
            waiting = client.send("wait", jobs=[1, 2])
            await until(lambda: bool(served.daemon.listeners))
            served.daemon.end(1, 1)
            await client.ask("retry", jobs=[1])
            served.daemon.end(2)
            await client.ask("ping")
            served.daemon.end(1, 0)
            reply = await client.read_reply(waiting)
            assert [end["exit_code"] for end in reply["jobs"]] == [0, 0]

    run(path, test)


def test_cancel_of_many_ends_a_wait_for_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE", 7)

    async def test(served: Served) -> None:
        async with served.client() as client:
            number = client.send("submit", count=100)
            client.raw(b'{"command":"a","held":true}\n' * 100)
            assert (await client.read_reply(number))["count"] == 100
            waiting = client.send("wait", jobs=["1-100"])
            await until(lambda: bool(served.daemon.listeners))
            await client.ask("cancel", jobs=["1-60"])
            # The rest goes while the wait is looking, at some page of it.
            await client.ask("cancel", jobs=["61-100"])
            reply = await client.read_reply(waiting)
            assert [end["job"] for end in reply["jobs"]] == list(range(1, 101))
            assert {end["outcome"] for end in reply["jobs"]} == {"cancelled"}

    run(path, test)


@pytest.mark.parametrize("turns", range(12))
def test_no_wake_up_is_lost_whenever_the_job_ends(
    path: Path, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE", 1)

    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            await client.submit()
            client.send("wait", jobs=["all"])
            for _ in range(turns):
                await asyncio.sleep(0)
            served.daemon.end(1)
            await asyncio.sleep(0)
            served.daemon.end(2)
            assert len((await client.read())["jobs"]) == 2

    run(path, test)


def test_an_end_that_is_not_committed_yet_is_none(path: Path) -> None:
    class Late(FakeDaemon):
        """Handles, and commits when told to."""

        late = False

        def commit(self) -> None:
            if not self.late:
                super().commit()

    async def test(served: Served) -> None:
        daemon = served.daemon
        assert isinstance(daemon, Late)
        async with served.client() as client:
            await client.submit()
            daemon.late = True
            daemon.end(1)
            client.send("wait", jobs=[1])
            await until(lambda: bool(daemon.listeners))
            assert (await client.ask("ping"))["type"] == "pong"
            daemon.late = False
            daemon.commit()
            assert (await client.read())["type"] == "waited"

    run(path, test, Late)


def test_a_waiting_client_that_leaves_costs_nothing(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            for _ in range(10):
                client.send("wait", jobs=[1])
            client.send("follow")
            await until(lambda: len(served.daemon.listeners) == 11)
        await until(lambda: not served.daemon.listeners)

    run(path, test)


def test_waits_and_follows_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpud.control.session.MAX_STREAMS", 3)

    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            sent = [client.send("wait", jobs=[1]) for _ in range(4)]
            reply = await client.read()
            assert (reply["id"], reply["type"]) == (sent[3], "error")
            served.daemon.end(1)
            assert {(await client.read())["id"] for _ in range(3)} == set(sent[:3])
            assert (await client.ask("wait", jobs=[1]))["type"] == "waited"

    run(path, test)


@pytest.mark.parametrize(("jobs", "kind"), [([77], "not-found"), ([], "usage"), (["x"], "usage")])
def test_what_cannot_be_waited_for(path: Path, jobs: list[object], kind: str) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("wait", jobs=jobs)
            assert (reply["type"], reply["kind"]) == ("error", kind)
            assert reply["message"].startswith("cannot ")

    run(path, test)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12))), st.sets(st.integers(1, 40)))
def test_touched_finds_what_events_are_about(events: list[tuple[int, int]], jobs: set[int]) -> None:
    views = [EventView(n, 0, job, 0, "x", {}, count) for n, (job, count) in enumerate(events)]
    about = {i for job, count in events for i in range(job, job + count)}
    assert set(touched(views, jobs)) == about & jobs
