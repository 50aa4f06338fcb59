"""edit, move and swap over the socket: what is changed, what is refused, and what is told."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from gpud.control import edits
from gpud.core.events import AttemptEnded, EditRequested
from gpud.core.model import Device, JobId

from .talking import Client, Served, run

SECRET = "hunter2"
ONLY = "only its priority and its retries can be changed now"
BOUNDS = "from -1000000000 to 1000000000"


def error(reply: dict[str, Any]) -> tuple[str, str]:
    assert reply["type"] == "error", reply
    return reply["kind"], reply["message"]


async def full(client: Client, served: Served, waiting: int = 3) -> list[int]:
    """Both GPUs are taken; the ids of those that wait."""
    for number in (1, 2):
        await client.submit("sleep 9", name="sleeper")
        served.daemon.start(number)
    return [await client.submit(f"train {n}", name="sweep") for n in range(waiting)]


async def told(client: Client, job: int) -> dict[str, Any]:
    """What the last event of its story says."""
    (shown,) = (await client.ask("show", jobs=[job]))["jobs"]
    assert shown["story"][-1]["kind"] == "edited"
    changed: dict[str, Any] = shown["story"][-1]["detail"]["changed"]
    return changed


def test_a_job_is_edited(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            job, *_ = await full(client, served)
            change = {
                "command": "python b.py", "cwd": "/tmp", "priority": 9, "gpus": 2, "retries": 3,
                "time_limit_s": 60.0, "env_add": [f"TOKEN={SECRET}"], "after_any": [1],
                "retry_on": ["oom", 75], "linger_s": "wait",
            }  # fmt: skip
            reply = await client.ask("edit", jobs=[job], change=change)
            assert reply == {"type": "edited", "id": reply["id"], "jobs": [job], "refused": []}
            (shown,) = (await client.ask("show", jobs=[job]))["jobs"]
            assert (shown["job"]["command"], shown["job"]["priority"]) == ("python b.py", 9)
            assert (shown["job"]["gpus"], shown["job"]["retries_left"]) == (2, 3)
            assert (shown["cwd"], shown["env_names"]) == ("/tmp", ["TOKEN"])
            assert (shown["time_limit_s"], shown["after_any"]) == (60.0, ["1"])
            assert await told(client, job) == {
                "command": ["train 0", "python b.py"],
                "cwd": ["/", "/tmp"],
                "env": ["TOKEN"],
                "gpus": [None, 2],
                "priority": [0, 9],
                "retries": [0, 3],
                "retry_on": [["failed", "killed", "timed-out", "lost"], ["oom", 75]],
                "time_limit_s": [None, 60.0],
                "linger_s": [10.0, "wait"],
                "after_any": [[], ["1"]],
            }
            await client.ask("edit", jobs=[job], change={"env_add": [f"TOKEN={SECRET}2", "A=1"]})
            assert await told(client, job) == {"env": ["A", "TOKEN"]}
            events = served.daemon.store.events_after(0, 1000)
            assert SECRET not in str(events)

    run(path, test)


def test_elements_of_an_array_are_edited_by_themselves_or_all(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await full(client, served, waiting=0)
            first = await client.submit("train", name="sweep", array="0-9")
            change = {"priority": 3, "checkpoint": "USR1"}
            reply = await client.ask("edit", jobs=[f"{first}[7]"], change=change)
            assert reply["jobs"] == [first + 7]
            told_ = {"priority": [0, 3], "checkpoint": ["", "SIGUSR1"]}
            assert await told(client, first + 7) == told_
            assert len(served.daemon.state.jobs) == 2 + 2, "the others share their record"
            reply = await client.ask("edit", jobs=["name:sweep"], change={"grace_s": 1})
            assert reply["jobs"] == [*range(first, first + 10)]
            change = {"checkpoint": "none", "after_any": [1]}
            reply = await client.ask("edit", jobs=[first + 7], change=change)
            assert reply["refused"][0]["message"].endswith(
                ": what an element of an array comes after is said of all of them, in the submit"
            )

    run(path, test)


def test_doing_it_twice_changes_nothing(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            job, *_ = await full(client, served)
            for jobs in ([job], []):
                reply = await client.ask("edit", jobs=[job], change={"priority": 9, "name": "x"})
                assert (reply["jobs"], reply["refused"]) == (jobs, [])

    run(path, test)


def test_many_are_edited_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "PAGE", 3)

    async def test(served: Served) -> None:
        async with served.client() as client:
            jobs = await full(client, served, waiting=8)
            asked = len(served.daemon.asked)
            reply = await client.ask("edit", jobs=["name:sweep", 1], change={"name": "x"})
            assert reply["jobs"] == jobs
            assert [refused["job"] for refused in reply["refused"]] == [1]
            pages = served.daemon.asked[asked:]
            assert [len(event.edits) for event in pages] == [3, 3, 3]  # type: ignore[attr-defined]

    run(path, test)


def test_a_disk_that_is_full_in_the_middle_says_how_far_it_got(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "PAGE", 2)

    async def test(served: Served) -> None:
        async with served.client() as client:
            await full(client, served, waiting=6)
            daemon, answered = served.daemon, itertools.count(1)
            ask = daemon.ask

            async def failing(make: Any, by: Any = None) -> Any:
                answer = await ask(make, by)
                daemon.broken = "the disk is full" if next(answered) == 2 else ""
                return answer

            monkeypatch.setattr(daemon, "ask", failing)
            reply = await client.ask("edit", jobs=["name:sweep"], change={"name": "x"})
            told = "the disk is full (4 jobs were changed before that)"
            assert error(reply) == ("storage", told)

    run(path, test)


def test_what_falls_under_a_selector_and_cannot_be_edited_is_passed_over(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            jobs = await full(client, served)
            served.daemon.post(AttemptEnded(JobId(1), 1, 5, exit_code=0))
            assert served.daemon.state.attempts.keys() == {2, 3}
            reply = await client.ask("edit", jobs=["all"], change={"name": "x"})
            assert (reply["jobs"], reply["refused"]) == (jobs[1:], [])
            reply = await client.ask("edit", jobs=["all"], change={"priority": 1})
            assert (reply["jobs"], reply["refused"]) == ([2, *jobs], []), "running ones, too"
            reply = await client.ask("edit", jobs=[1, 2, 4], change={"name": "y"})
            assert reply["jobs"] == [4]
            assert [one["message"] for one in reply["refused"]] == [
                "cannot edit job 1: it is done",
                f"cannot edit job 2: it is running: {ONLY}",
            ]

    run(path, test)


def test_what_only_one_job_cannot_take_is_said_of_that_one(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await full(client, served, waiting=0)
            one = await client.submit("x", exclusive=True)
            other = await client.submit("x")
            reply = await client.ask("edit", jobs=[f"{one}-{other}"], change={"gpus": 0.5})
            assert reply["jobs"] == [other]
            (refused,) = reply["refused"]
            why = f"cannot edit job {one}: a share of a GPU cannot be exclusive"
            assert refused == {"job": one, "message": why}
            reply = await client.ask("edit", jobs=["3-4"], change={"gpus": 3})
            assert [r["job"] for r in reply["refused"]] == [one, other]
            assert not reply["jobs"]

    run(path, test)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({}, "usage", "cannot edit: nothing is said to be changed"),
        ({"held": True}, "usage", "cannot edit whether a job is held"),
        ({"array": "0-9"}, "usage", "cannot edit which elements an array has, and its rules"),
        ({"max_fails": 3}, "usage", "cannot edit which elements an array has, and its rules"),
        ({"priority": 10**10}, "usage", f"cannot edit: priority must be {BOUNDS}"),
        ({"command": " "}, "usage", "cannot edit: the command is empty"),
        ({"cwd": "x"}, "usage", "cannot edit: the working directory must be absolute"),
        ({"env_add": [f"={SECRET}"]}, "usage", "cannot edit: entry 1 of env_add is not NAME=VALUE"),
        ({"after": [99]}, "not-found", "cannot edit: it cannot come after job 99: no such job"),
        ({"after": ["5-x"]}, "usage", 'cannot edit: it cannot come after "5-x": not a selector'),
    ],
)  # fmt: skip
def test_what_no_job_can_be_made(
    path: Path, change: dict[str, Any], kind: str, message: str
) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            job, *_ = await full(client, served)
            asked = len(served.daemon.asked)
            assert error(await client.ask("edit", jobs=[job], change=change)) == (kind, message)
            assert len(served.daemon.asked) == asked

    run(path, test)


def test_after_the_last_one_there_is_and_never_in_a_circle(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            first, second, third = await full(client, served)
            assert (await client.ask("edit", jobs=[first], change={"after": ["@"]}))["jobs"]
            assert await told(client, first) == {"after": [[], [str(third)]]}
            (refused,) = (await client.ask("edit", jobs=[third], change={"after": [first]}))[
                "refused"
            ]
            assert refused["message"] == (
                f"cannot edit job {third}: it cannot come after job {first}, which comes after it"
            )
            change = {"after_any": [second], "after_failed": "wait"}
            assert (await client.ask("edit", jobs=[first], change=change))["jobs"] == [first]
            assert await told(client, first) == {
                "after_any": [[], [str(second)]],
                "after_failed": ["cancel", "wait"],
            }
            await client.ask("edit", jobs=[first], change={"after": [], "after_any": []})
            assert not served.daemon.state.jobs[JobId(first)].after.spans

    run(path, test)


def test_a_job_of_one_likeness_becomes_another(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            served.daemon.state.pool.replace([Device("0", ("0",), memory_mib=8000)])
            served.daemon.state.ready.resolve_all()
            await client.submit("sleep 9")
            job = await client.submit("x", vram_mib="auto", name="a")
            before = served.daemon.state.jobs[JobId(job)].request.likeness
            await client.ask("edit", jobs=[job], change={"name": "b"})
            assert await told(client, job) == {"name": ["a", "b"]}
            assert before.endswith(": a")
            assert served.daemon.state.jobs[JobId(job)].request.likeness.endswith(": b")

    run(path, test)


def test_two_edits_at_once_do_not_undo_each_other(path: Path) -> None:
    """Both are made from what is committed; the second is made anew from what the first made."""

    async def test(served: Served) -> None:
        async with served.client() as client, served.client() as other:
            job, *_ = await full(client, served)
            client.send("edit", jobs=[job], change={"priority": 1})
            other.send("edit", jobs=[job], change={"name": "other"})
            assert (await client.read())["jobs"] == (await other.read())["jobs"] == [job]
            spec = served.daemon.store.spec(JobId(job))
            assert (spec.priority, spec.name) == (1, "other")
            (event,) = [e for e in served.daemon.asked if isinstance(e, EditRequested)][:1]
            assert event.edits[0].becomes.priority == 1

    run(path, test)


def test_moves_and_swaps(path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            a, b, c = await full(client, served)
            reply = await client.ask("move", jobs=[c], before=a)
            assert reply == {
                "type": "moved", "id": reply["id"], "jobs": [c], "refused": [], "priorities": [],
            }  # fmt: skip
            assert await waiting(client) == [c, a, b]
            assert (await client.ask("move", jobs=[c], to="last"))["jobs"] == [c]
            assert (await client.ask("move", jobs=["name:sweep"], after=b))["jobs"] == [a, c]
            assert await waiting(client) == [b, a, c]
            await client.ask("edit", jobs=[c], change={"priority": 5})
            reply = await client.ask("move", jobs=[a, 1], to="first")
            assert reply["priorities"] == [{"job": a, "priority": 5}]
            assert [r["message"] for r in reply["refused"]] == ["cannot move job 1: it is running"]
            reply = await client.ask("swap", jobs=[a, b])
            assert reply["type"] == "swapped"
            assert reply["jobs"] == [a, b]
            assert sorted(reply["priorities"], key=lambda p: p["job"]) == [
                {"job": a, "priority": 0}, {"job": b, "priority": 5},
            ]  # fmt: skip
            assert await waiting(client) == [b, c, a]
            why = (await client.ask("why", jobs=[a]))["reasons"][0]["reason"]
            assert why.endswith("; 2 jobs are before it")

    run(path, test)


async def waiting(client: Client) -> list[int]:
    jobs = (await client.ask("ls"))["jobs"]
    return [job["id"] for job in jobs if job["state"] == "queued"]


@pytest.mark.parametrize(
    ("verb", "fields", "kind", "why"),
    [
        ("move", {"jobs": [3]}, "usage", ": it takes one place"),
        ("move", {"jobs": [3], "before": 4, "to": "last"}, "usage", ": it takes one place"),
        ("move", {"jobs": [3], "before": 99}, "not-found", " before job 99: no such job"),
        ("move", {"jobs": [3], "after": "3-5"}, "usage", " after 3-5: that is 3 jobs"),
        ("move", {"jobs": [3], "after": 1}, "refused", " jobs after job 1: it is running"),
        ("move", {"jobs": [99], "to": "last"}, "not-found", " job 99: no such job"),
        ("swap", {"jobs": [3]}, "usage", ": it takes two jobs"),
        ("swap", {"jobs": [3, 4, 5]}, "usage", ": it takes two jobs"),
        ("swap", {"jobs": ["3-4"]}, "usage", ": it takes two jobs"),
        ("swap", {"jobs": ["3-4", 5]}, "usage", " 3-4: that is 2 jobs"),
        ("swap", {"jobs": [3, 99]}, "not-found", " job 99: no such job"),
        ("swap", {"jobs": [3, "@~2"]}, "refused", " job 3 with itself"),
        ("swap", {"jobs": [3, 1]}, "refused", " job 1: it is running"),
    ],
)
def test_what_cannot_be_moved_or_swapped(
    path: Path, verb: str, fields: dict[str, Any], kind: str, why: str
) -> None:
    async def test(served: Served) -> None:
        async with served.client() as client:
            await full(client, served)
            assert error(await client.ask(verb, **fields)) == (kind, f"cannot {verb}{why}")
            assert await waiting(client) == [3, 4, 5]

    run(path, test)
