"""Submits over the socket: one job, many jobs, the same submit again, and what is refused whole."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gpud.control import bulk
from gpud.core.events import JobsSubmitted
from gpud.core.model import JobId

from .talking import Client, Served, run, until


def job(n: int = 0, **fields: object) -> bytes:
    return json.dumps({"command": f"c{n}", **fields}).encode() + b"\n"


async def send_bulk(client: Client, lines: list[bytes], **fields: object) -> Any:
    number = client.send("submit", **({"count": len(lines)} | fields))
    client.raw(b"".join(lines))
    await client.writer.drain()
    return await client.read_reply(number)


def test_one_job(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask(
                "submit", job={"argv": ["a", "b c"], "cwd": "/tmp"}, common={"env": ["A=1"]}
            )
            assert reply == {
                "type": "submitted", "id": 1, "first": 1, "count": 1, "again": False
            }  # fmt: skip
            spec = served.daemon.store.spec(JobId(1))
            assert (spec.argv, spec.cwd, spec.env) == ((b"a", b"b c"), b"/tmp", b"A=1")
            assert (spec.uid, spec.source) == (os.geteuid(), "")

    run(path, test)


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        ({"job": {}}, "refused", "cannot submit: neither command nor argv is given"),
        ({}, "usage", "cannot submit: give `job`, or a positive `count`"),
        ({"count": -1}, "usage", "cannot submit: give `job`, or a positive `count`"),
        (
            {"job": {"command": "a", "cwd": "x"}},
            "refused",
            "cannot submit: the working directory must be absolute",
        ),
        (
            {"job": {"command": "a"}, "common": {"cwd": "x"}},
            "refused",
            "cannot submit: common: the working directory must be absolute",
        ),
        (
            {"job": {"command": "a"}, "key": "k" * 201},
            "refused",
            "cannot submit: the key is longer than 200 characters",
        ),
        (
            {"job": {"command": "a", "gpus": 9}},
            "refused",
            "cannot submit: needs 9 GPUs, this machine has 2",
        ),
        (
            {"job": {"command": "a", "gpu": 1}},
            "protocol",
            "cannot understand the request: Object contains unknown field `gpu` - at `$.job`",
        ),
    ],
)
def test_what_is_refused(path: Path, request_: dict[str, Any], kind: str, message: str) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("submit", **request_)
            assert (reply["type"], reply["kind"], reply["message"]) == ("error", kind, message)
            assert served.daemon.state.next_id == 1

    run(path, test)


def test_many_jobs_are_one_event_and_one_answer(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            lines = [job(n, name=f"n{n % 3}") for n in range(10_000)]
            reply = await send_bulk(client, lines, common={"cwd": "/data", "env": ["A=1", "B=2"]})
            assert (reply["type"], reply["first"], reply["count"]) == ("submitted", 1, 10_000)
            (event,) = served.daemon.asked
            assert isinstance(event, JobsSubmitted)
            assert len({id(new.spec.env) for new in event.jobs}) == 1
            assert served.daemon.store.spec(JobId(10_000)).command == b"c9999"
            assert (await client.ask("ping"))["type"] == "pong"

    run(path, test)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{nonsense\n", "cannot understand job 17 of 100: JSON is malformed"),
        (b'{"command":1}\n', "cannot understand job 17 of 100: Expected `str | object`"),
        (job(0, comand="x"), "cannot understand job 17 of 100: Object contains unknown field"),
        (b"{}\n", "cannot submit: job 17 of 100: neither command nor argv is given"),
        (job(0, cwd="x"), "cannot submit: job 17 of 100: the working directory must be absolute"),
        (job(0, gpus=9), "cannot submit: job 17: needs 9 GPUs, this machine has 2"),
    ],
)
def test_one_bad_job_refuses_all_and_is_named(path: Path, line: bytes, message: str) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            lines = [job(n) for n in range(100)]
            lines[16] = line
            reply = await send_bulk(client, lines)
            assert reply["type"] == "error"
            assert reply["message"].startswith(message)
            assert served.daemon.state.next_id == 1
            # The lines after it were read past: the next request is found.
            assert (await client.ask("ping"))["type"] == "pong"
            assert await client.submit() == 1

    run(path, test)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"job": {"command": "a"}}, "cannot submit: both `job` and `count` are given"),
        ({"common": {"cwd": "x"}}, "cannot submit: common: the working directory must be absolute"),
        ({"key": "k" * 201}, "cannot submit: the key is longer than 200 characters"),
    ],
)
def test_a_header_that_cannot_be_is_answered_at_once(
    path: Path, fields: dict[str, Any], message: str
) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("submit", count=3, **fields)
            assert reply["message"] == message
            client.raw(job() * 3)
            assert await client.submit() == 1

    run(path, test)


def test_bulk_submits_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("submit", count=bulk.MAX_JOBS + 1)
            assert reply["message"] == "cannot submit: 1000001 jobs at once are more than 1000000"
        monkeypatch.setattr(bulk, "MAX_BYTES", 1 << 20)
        async with served.client() as client:
            lines = [job(n, setup="x" * 100_000) for n in range(20)]
            reply = await send_bulk(client, lines)
            assert reply["message"] == "cannot submit: job 11 of 20: past 1 MiB of jobs"
            assert await client.submit() == 1

    run(path, test)


def test_the_same_submit_again_is_answered_again(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            lines = [job(n) for n in range(3)]
            first = await send_bulk(client, lines, key="k1", common={"cwd": "/"})
            served.daemon.defaults = type(served.daemon.defaults)(grace_s=1.0)  # a reload between
            # The same content, written in another way.
            spaced = [b" " + line.replace(b":", b" : ") for line in lines]
            again = await send_bulk(client, spaced, key="k1", common={"cwd": "/"})
            assert (again["first"], again["count"], again["again"]) == (first["first"], 3, True)
            other = await send_bulk(client, lines[:2], key="k1", common={"cwd": "/"})
            assert other["message"].startswith('cannot submit with key "k1": it was used for a dif')
            # From another directory, by somebody with another environment.
            moved = await send_bulk(
                client, lines, key="k1", common={"cwd": "/tmp", "env": ["A=1"], "umask": 0}
            )
            assert (moved["first"], moved["again"]) == (first["first"], True)
            asked = await send_bulk(client, lines, key="k1", common={"env_add": ["A=1"]})
            assert asked["kind"] == "refused"
            assert (await client.ask("submit", job={"command": "x"}, key="k2"))["first"] == 4

    run(path, test)


def test_a_client_that_leaves_in_the_middle_has_submitted_nothing(path: Path) -> None:
    async def test(served: Served) -> None:
        for end in (b"", job()[:-1], job()[:5]):
            async with served.client() as client:
                client.send("submit", count=100)
                client.raw(job() * 98 + end)
                await client.writer.drain()
            async with served.client() as client:
                client.send("submit", count=100)
                client.raw(job() * 98 + end)
                client.writer.write_eof()
                assert await client.read() is None
        async with served.client() as client:
            assert await client.submit() == 1
        assert len(served.daemon.asked) == 1

    run(path, test)


def test_a_submit_that_came_whole_is_kept_though_its_client_left(path: Path) -> None:
    async def test(served: Served) -> None:
        served.daemon.gate = asyncio.Event()
        async with served.client() as client:
            client.send("submit", job={"command": "a"})
            await until(lambda: bool(served.daemon.asked))
        served.daemon.gate.set()
        await until(lambda: served.daemon.state.next_id == 2)

    run(path, test)


def test_others_are_answered_while_a_submit_waits_for_its_commit(path: Path) -> None:
    async def test(served: Served) -> None:
        served.daemon.gate = asyncio.Event()
        async with served.client() as slow, served.client() as other:
            submit = slow.send("submit", job={"command": "a"})
            ping = slow.send("ping")
            await until(lambda: bool(served.daemon.asked))
            assert (await other.ask("ping"))["type"] == "pong"
            served.daemon.gate.set()
            replies = [await slow.read(), await slow.read()]
            assert [reply["id"] for reply in replies] == [submit, ping]

    run(path, test)
