"""Each verb: what is answered, what is refused and in which words, which jobs it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud import __version__
from gpud.control import queries
from gpud.control.views import done_sentence
from gpud.core.events import CancelRequested, DevicesChanged, RetryRequested
from gpud.core.model import Device
from gpud.protocol.replies import MOST_OF_COMMAND, JobView
from gpud.signals import signal_name

from .talking import Served, run


def error(reply: dict[str, Any]) -> tuple[str, str]:
    assert reply["type"] == "error", reply
    return reply["kind"], reply["message"]


def test_greeting_and_ping(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            assert client.greeting["gpud"] == __version__
            assert client.greeting["protocol"] == 1
            assert "follow" in client.greeting["features"]
            pong = await client.ask("ping")
            assert (pong["type"], pong["pid"]) == ("pong", os.getpid())

    run(path, test)


def test_status_is_put_together(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            first = await client.submit("a")
            served.daemon.start(first)
            served.daemon.end(first, 2)
            for _ in range(3):
                await client.submit("b")
            await client.submit("c", held=True)
            served.daemon.broken = "cannot write /x: no space left on device"
            status = await client.ask("status")
        assert status["type"] == "status"
        assert (status["queued"], status["held"], status["active"]) == (1, 1, 2)
        assert status["done"]["failed"] == 1
        assert [job["id"] for job in status["running"]] == [2, 3]
        assert [job["id"] for job in status["recent"]] == [1]
        assert [gpu["key"] for gpu in status["gpus"]] == ["0", "1", "cpu"]
        assert status["gpus"][0]["jobs"] == [2]
        assert status["gpus"][0]["free_milli"] == 0
        assert [source["name"] for source in status["sources"]] == ["queue"]
        assert status["problems"] == [served.daemon.broken]

    run(path, test)


def test_pause_continue_and_checkpoint(path: Path) -> None:
    async def test(served: Served) -> None:
        daemon = served.daemon
        async with served.client() as client:
            first = await client.submit("a", checkpoint="usr1")
            second = await client.submit("b")
            waits = await client.submit("c", name="sweep")
            daemon.start(first)
            reply = await client.ask("pause", jobs=[first, second, waits])
            assert (reply["type"], reply["jobs"]) == ("paused", [first])
            assert [one["message"] for one in reply["refused"]] == [
                "cannot pause job 2: it is starting",
                "cannot pause job 3: it is queued",
            ]
            (job,) = (await client.ask("ls", jobs=["state:paused"]))["jobs"]
            assert (job["id"], job["phase"], job["checkpoint"]) == (first, "paused", "SIGUSR1")
            assert job["paused_at_ms"] > 1_000_000
            assert job["reason"] == (
                "paused on GPU 0 for 1 s; its GPU memory stays held: gpuctl continue 1"
            )
            why = (await client.ask("why", jobs=[first]))["reasons"][0]["reason"]
            assert why == job["reason"]
            status = await client.ask("status")
            assert [j["phase"] for j in status["running"]] == ["paused", "starting"]
            assert status["gpus"][0]["free_milli"] == 0
            assert (await client.ask("pause", jobs=["all"]))["jobs"] == []
            daemon.start(second)
            assert (await client.ask("pause", jobs=["all"]))["jobs"] == [second]
            reply = await client.ask("continue", jobs=["1-3"])
            assert (reply["type"], reply["jobs"]) == ("continued", [first, second])
            reply = await client.ask("checkpoint", jobs=["all"], grace_s=2.5)
            assert (reply["type"], reply["jobs"]) == ("checkpointed", [first])
            assert daemon.asked[-1].grace_s == 2.5
            (refused,) = (await client.ask("checkpoint", jobs=[second]))["refused"]
            assert refused["message"].startswith("cannot checkpoint job 2: it does not say at")
            assert error(await client.ask("checkpoint", jobs=[first], grace_s=-1)) == (
                "refused",
                "cannot checkpoint: grace_s must be from 0 to 316224000 seconds",
            )
            why = (await client.ask("why", jobs=[first]))["reasons"][0]["reason"]
            assert why == "saving its state on GPU 0, to be queued again"

    run(path, test)


def test_reads_work_while_the_store_cannot_write(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            served.daemon.broken = "cannot write /x: no space left on device"
            for verb in ("ping", "status", "ls", "gpus", "sources"):
                assert (await client.ask(verb))["type"] != "error"
            for verb in ("show", "why"):
                assert (await client.ask(verb, jobs=[1]))["type"] != "error"
            for verb in ("cancel", "hold"):
                reply = await client.ask(verb, jobs=[1])
                assert error(reply) == ("storage", served.daemon.broken)
            reply = await client.ask("submit", job={"command": "true"})
            assert error(reply) == ("storage", served.daemon.broken)
            assert error(await client.ask("drain"))[0] == "storage"

    run(path, test)


def test_ls_shows_what_waits_and_why(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(4):
                await client.submit()
            await client.submit(held=True)
            everything = await client.ask("ls", limit=0)
            reasons = [(job["state"], job["reason"]) for job in everything["jobs"]]
            assert reasons == [
                ("active", ""),
                ("active", ""),
                ("queued", "waits for a free slot: all 2 are taken"),
                ("queued", "waits for a free slot: all 2 are taken"),
                ("held", "held: gpuctl release 5"),
            ]
            assert everything["more"] == 0
            page = await client.ask("ls", limit=2)
            assert ([job["id"] for job in page["jobs"]], page["more"]) == ([1, 2], 3)
            chosen = await client.ask("ls", jobs=["2-4", "@"], limit=3)
            assert ([job["id"] for job in chosen["jobs"]], chosen["more"]) == ([2, 3, 4], 1)
            assert error(await client.ask("ls", limit=-1))[0] == "usage"
            assert error(await client.ask("ls", recent=2**40))[0] == "usage"
            assert error(await client.ask("ls", jobs=[77])) == (
                "not-found",
                "cannot list job 77: no such job",
            )

    run(path, test)


def test_a_limit_is_for_all_that_is_shown(path: Path) -> None:
    """What runs comes first, then what waits, then what has ended: a fifth is for that."""

    async def test(served: Served) -> None:
        async with served.client() as client:
            for job in range(1, 21):
                await client.submit()
                served.daemon.start(job)
                served.daemon.end(job)
            for _ in range(12):
                await client.submit()

            async def shown(limit: int, recent: int = 10) -> tuple[int, int, int, int]:
                page = await client.ask("ls", limit=limit, recent=recent)
                states = [job["state"] for job in page["jobs"]]
                assert states == sorted(states, key=["done", "active", "queued"].index)
                counted = (states.count(s) for s in ("done", "active", "queued"))
                return (*counted, page["more"])

            assert await shown(1) == (0, 1, 0, 21)
            assert await shown(2) == (0, 2, 0, 20)
            assert await shown(4) == (0, 2, 2, 18)
            assert await shown(10) == (2, 2, 6, 12)
            assert await shown(16, recent=1) == (1, 2, 10, 0)
            assert await shown(20) == (8, 2, 10, 2)
            assert await shown(22) == (10, 2, 10, 0)
            assert await shown(0) == (10, 2, 10, 0)

    run(path, test)


@given(*[st.integers(0, 30)] * 3, st.integers(1, 60))
def test_shares_of_a_page(active: int, waiting: int, ended: int, limit: int) -> None:
    undone, recent = queries.shares(limit, active, waiting, ended)
    assert 0 <= undone <= active + waiting
    assert 0 <= recent <= ended
    assert undone + recent == min(limit, active + waiting + ended)
    assert undone >= min(limit, active)
    assert recent >= min(ended, limit // 5, limit - min(limit, active))
    assert undone or not active + waiting  # `page` takes 0 for all


def test_a_list_is_bounded_and_its_next_page_can_be_had(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_LISTED", 3)

    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(8):
                await client.submit()
            for limit in (0, 3, 100):
                page = await client.ask("ls", jobs=["all"], limit=limit)
                assert ([job["id"] for job in page["jobs"]], page["more"]) == ([1, 2, 3], 5)
                queue = await client.ask("ls", limit=limit, recent=100)
                assert (len(queue["jobs"]), queue["more"]) == (3, 5)
            page = await client.ask("ls", jobs=["all"], limit=0, after=3)
            assert ([job["id"] for job in page["jobs"]], page["more"]) == ([4, 5, 6], 2)
            page = await client.ask("ls", jobs=["2-8", 1], limit=0, after=6)
            assert ([job["id"] for job in page["jobs"]], page["more"]) == ([7, 8], 0)
            assert (await client.ask("ls", jobs=["all"], after=8))["jobs"] == []
            assert error(await client.ask("ls", after=3)) == (
                "usage",
                "cannot list: `after` needs `jobs`",
            )

    run(path, test)


def test_a_long_command_is_whole_in_show_alone(path: Path) -> None:
    command = "é" * 100_000

    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit(command)
            (listed,) = (await client.ask("ls"))["jobs"]
            (running,) = (await client.ask("status"))["running"]
            assert listed["command"] == "é" * (MOST_OF_COMMAND - 1) + "…"
            assert running["command"] == listed["command"]
            (shown,) = (await client.ask("show", jobs=[1]))["jobs"]
            assert shown["job"]["command"] == command

    run(path, test)


def test_phases_and_what_went_wrong_select_jobs(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(5):
                await client.submit()
            served.daemon.start(1)
            served.daemon.end(1, 1)
            served.daemon.end(2)
            served.daemon.start(3)
            await client.ask("cancel", jobs=[5])

            async def ids(selector: str) -> list[int]:
                found = await client.ask("ls", jobs=[selector])
                return [job["id"] for job in found["jobs"]]

            assert await ids("state:running") == [3]
            assert await ids("state:starting") == [4]
            assert await ids("state:stopping") == []
            assert await ids("state:bad") == [1], "a cancelled job is what somebody wanted"
            assert (await client.ask("retry", jobs=["state:bad"]))["jobs"] == [1]

    run(path, test)


def test_one_job_alone_is_told_its_place_in_the_queue(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for priority in (0, 0, 0, 0, 5):
                await client.submit(priority=priority)

            async def why(*jobs: int) -> list[str]:
                reply = await client.ask("why", jobs=jobs)
                return [reason["reason"] for reason in reply["reasons"]]

            waits = "waits for a free slot: all 2 are taken"
            assert await why(5) == [f"{waits}; it is the next one"]
            assert await why(3) == [f"{waits}; 1 job is before it"]
            assert await why(4) == [f"{waits}; 2 jobs are before it"]
            assert await why(3, 4) == [waits, waits]
            assert await why(1) == ["starting on GPU 0"]
            await client.ask("drain")
            assert await why(4) == ["the pool is drained: gpuctl undrain"]
            await client.ask("hold", jobs=[3])
            assert await why(3) == ["held: gpuctl release 3"]

    run(path, test)


def test_why_and_show(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(3):
                await client.submit("train", env=["SECRET=1"])
            served.daemon.start(1)
            served.daemon.end(1, 3)
            why = await client.ask("why", jobs=["all"])
            assert [reason["reason"] for reason in why["reasons"]] == [
                "done: it failed with exit status 3",
                "starting on GPU 1",
                "starting on GPU 0",
            ]
            shown = await client.ask("show", jobs=["1-2"])
            assert [detail["job"]["id"] for detail in shown["jobs"]] == [1, 2]
            assert shown["jobs"][0]["env_names"] == ["SECRET"]
            assert shown["jobs"][0]["story"][0]["kind"] == "submitted"
            assert error(await client.ask("why", jobs=[]))[0] == "usage"
            assert error(await client.ask("show", jobs=["x"]))[0] == "usage"

    run(path, test)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"outcome": "succeeded", "exit_code": 0}, "done: it succeeded"),
        ({"outcome": "killed", "signal": 9}, "done: it was killed by SIGKILL"),
        ({"outcome": "timed-out", "signal": 15}, "done: it ran past its time limit"),
        ({"outcome": "cancelled"}, "done: it was cancelled"),
        ({"outcome": "lost", "why": "x"}, "done: how it ended is not known: x"),
        ({"outcome": "not-started", "why": "y"}, "done: it could not be started: y"),
    ],
)
def test_what_is_said_of_a_job_that_is_done(fields: dict[str, Any], sentence: str) -> None:
    plain: dict[str, Any] = dict.fromkeys(JobView.__struct_fields__, "")
    view = JobView(**(plain | {"state": "done", "exit_code": None, "signal": None} | fields))
    assert done_sentence(view) == sentence


def test_a_signal_without_a_name_has_a_number() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(200) == "signal 200"


def test_cancel_leaves_out_what_falls_under_a_range_and_is_done(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(5):
                await client.submit()
            served.daemon.end(1)
            reply = await client.ask("cancel", jobs=["1-4"], grace_s=2.5)
            assert reply == {"type": "cancelled", "id": 6, "jobs": [2, 3, 4], "refused": []}
            assert served.daemon.asked[-1] == CancelRequested(6, (2, 3, 4), 2.5)  # type: ignore[arg-type]
            reply = await client.ask("cancel", jobs=[1, "2-5"])
            assert reply["jobs"] == [2, 3, 5]
            assert reply["refused"] == [{"job": 1, "message": "cannot cancel job 1: it is done"}]
            served.daemon.end(2)
            served.daemon.end(3)
            asked = len(served.daemon.asked)
            reply = await client.ask("cancel", jobs=["all"])
            assert (reply["type"], reply["jobs"]) == ("cancelled", [])
            for grace_s in (-1, 1e300):
                assert error(await client.ask("cancel", jobs=[1], grace_s=grace_s)) == (
                    "refused",
                    "cannot cancel: grace_s must be from 0 to 316224000 seconds",
                )
            assert len(served.daemon.asked) == asked, "there was nothing to ask for"

    run(path, test)


def test_what_matches_nothing_is_not_found(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            for verb in ("cancel", "retry", "hold", "release"):
                assert error(await client.ask(verb, jobs=["state:failed"])) == (
                    "not-found",
                    f"cannot {verb}: nothing matches state:failed",
                )
                assert error(await client.ask(verb, jobs=["name:x"]))[0] == "not-found"
                assert error(await client.ask(verb, jobs=[1, 43])) == (
                    "not-found",
                    f"cannot {verb} job 43: no such job",
                )
                assert error(await client.ask(verb, jobs=[])) == (
                    "usage",
                    f"cannot {verb}: no job is given",
                )

    run(path, test)


def test_hold_release_and_retry(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            for _ in range(4):
                await client.submit()
            assert (await client.ask("hold", jobs=["all"]))["jobs"] == [3, 4]
            refused = (await client.ask("hold", jobs=[1]))["refused"]
            assert refused == [{"job": 1, "message": "cannot hold job 1: it is starting"}]
            assert (await client.ask("release", jobs=["all"]))["jobs"] == [3, 4]
            served.daemon.end(1, 1)
            assert (await client.ask("retry", jobs=["state:failed"]))["jobs"] == [1]
            retried = served.daemon.asked[-1]
            assert isinstance(retried, RetryRequested)
            assert retried.jobs == (1,)
            refused = (await client.ask("retry", jobs=[2]))["refused"]
            assert refused == [{"job": 2, "message": "cannot retry job 2: it is not done"}]
            assert (await client.ask("retry", jobs=["all"]))["jobs"] == []

    run(path, test)


def test_drain_sources_gpus_reload(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await client.submit()
            assert await client.ask("drain") == {"type": "drained", "id": 2, "active": 1}
            assert (await client.ask("status"))["draining"]
            assert (await client.ask("undrain"))["type"] == "undrained"
            stopped = await client.ask("source-stop", name="queue")
            assert stopped == {"type": "source-stopped", "id": 5, "name": "queue"}
            assert served.daemon.state.stopped_sources == {"queue"}
            assert (await client.ask("source-start", name="queue"))["type"] == "source-started"
            # The daemon switches it: an event alone would leave its task as it is.
            assert served.daemon.switched == [("queue", True), ("queue", False)]
            assert error(await client.ask("source-stop", name="qeue")) == (
                "not-found",
                'cannot stop source "qeue": no such source',
            )
            served.daemon.post(DevicesChanged((Device("1", ("1",)),)))
            gpus = (await client.ask("gpus"))["gpus"]
            assert [(gpu["key"], gpu["jobs"]) for gpu in gpus] == [("1", []), ("0", [1])]
            assert gpus[1]["problem"] == "not in the pool now"
            assert (await client.ask("reload"))["changes"] == ["[pool] gpus: needs a restart"]

    run(path, test)


def test_requests_are_answered_in_order(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            sent = [client.send("submit", job={"command": f"c{n}"}) for n in range(20)]
            sent.append(client.send("ping"))
            sent.append(client.send("cancel", jobs=["1-20"]))
            replies = [await client.read() for _ in sent]
            assert [reply["id"] for reply in replies] == sent
            assert [reply["first"] for reply in replies[:20]] == list(range(1, 21))
            assert replies[-1]["jobs"] == list(range(1, 21))

    run(path, test)
