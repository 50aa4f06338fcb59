"""Submits of jobs that come after others: which ones are meant, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.core.model import After, JobId, Span

from .talking import Client, Served, run
from .test_submit import job, send_bulk


async def queue(client: Client, *names: str) -> None:
    for name in names:
        await client.ask("submit", job={"command": "x", "name": name})


def after_of(served: Served, job_id: int) -> After:
    return served.daemon.state.jobs[JobId(job_id)].after


def test_jobs_by_id_range_name_and_place(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await queue(client, "a", "b", "a", "c")
            asked = {"after": [2, "name:a"], "after_any": ["3-4"], "after_failed": "wait"}
            await client.ask("submit", job={"command": "x", **asked})
            assert after_of(served, 5) == After((Span(1, 3), Span(3, 4, ended=True)), patient=True)
            await client.ask("submit", job={"command": "x", "after": ["@", "@~2"]})
            assert after_of(served, 6) == After((Span(3, 3), Span(5, 5)))
            detail = (await client.ask("show", jobs=[5]))["jobs"][0]
            assert detail["after"] == ["1-3"]
            assert detail["after_any"] == ["3-4"]
            assert detail["after_failed"] == "wait"

    run(path, test)


def test_in_a_submit_of_many_the_last_one_is_the_line_before_or_the_job_before_all(
    path: Path,
) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await queue(client, "a")
            await send_bulk(client, [job(n, after=["@"]) for n in range(3)])
            assert [after_of(served, n).spans for n in (2, 3, 4)] == [
                (Span(1, 1),), (Span(2, 2),), (Span(3, 3),),
            ]  # fmt: skip
            lines = [job(0), job(1), job(2, after=[]), job(3, after_failed="wait")]
            await send_bulk(client, lines, common={"after": ["@"]})
            assert [after_of(served, n).spans for n in (5, 6, 7, 8)] == [
                (Span(4, 4),), (Span(4, 4),), (), (Span(4, 4),),
            ]  # fmt: skip
            assert after_of(served, 8).patient

    run(path, test)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (["soon"], 'it cannot come after "soon": not a selector'),
        (["5-1"], 'it cannot come after "5-1": 5 is greater than 1'),
        ([9], "it cannot come after job 9: no such job"),
        (["1-9"], "it cannot come after job 9: no such job"),
        ([2], "it cannot come after job 2: no such job"),  # that would be itself
        (["@~1"], "there are not so many jobs that it could come after"),
    ],
)
def test_what_cannot_be_come_after(path: Path, after: list[object], message: str) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await queue(client, "a")
            reply = await client.ask("submit", job={"command": "x", "after": after})
            assert (reply["type"], reply["message"]) == ("error", f"cannot submit: {message}")
            assert len(served.daemon.state.jobs) == 1

    run(path, test)


def test_who_comes_after_a_failure_is_cancelled_or_waits_for_its_retry(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await queue(client, "a")
            for more in ({"after": [1]}, {"after": [1], "after_failed": "wait"}):
                await client.ask("submit", job={"command": "x", **more})
            await client.ask("submit", job={"command": "x", "after": [2]})
            served.daemon.start(1)
            served.daemon.end(1, exit_code=1)
            told = (await client.ask("why", jobs=["all"]))["reasons"]
            assert [reason["reason"] for reason in told] == [
                "done: it failed with exit status 1",
                "done: it was cancelled: job 1, which it comes after, failed",
                "waits for job 1, which failed: gpuctl retry 1",
                "done: it was cancelled: job 2, which it comes after, was cancelled",
            ]
            late = await client.ask("submit", job={"command": "x", "after": [1]})
            assert late["message"] == "cannot submit: job 1, which it comes after, failed"
            refused = (await client.ask("retry", jobs=[4]))["refused"]
            why = "cannot retry job 4: job 2, which it comes after, was cancelled"
            assert refused == [{"job": 4, "message": why}]
            assert (await client.ask("retry", jobs=[1, 2, 4]))["jobs"] == [1, 2, 4]

    run(path, test)
