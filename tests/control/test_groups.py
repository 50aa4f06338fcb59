"""Groups, labels and users over the socket."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from gpud.config.schema import JobDefaults
from gpud.core.events import GateRequested, RulesChanged, WindowsTurned
from gpud.core.rules import DEFAULT, NONE, Rule, Rules, Window

from .talking import Served, run

ME = pwd.getpwuid(os.geteuid()).pw_name
NIGHTS = {"clock": "the window nights"}


async def submit(client: Any, count: int = 1, **fields: Any) -> list[int]:
    jobs = []
    for _ in range(count):
        reply = await client.ask("submit", job={"command": "train", **fields})
        assert reply["type"] == "submitted", reply
        jobs.append(reply["first"])
    return jobs


def test_a_job_says_what_it_belongs_to(path: Path) -> None:
    async def talk(served: Served) -> None:
        served.daemon.defaults = JobDefaults(labels={"by": "hand", "sweep": "no"})
        async with served.client() as client:
            [job] = await submit(client, group="lr", labels={"sweep": "lr"})
            shown = (await client.ask("show", jobs=[job]))["jobs"][0]["job"]
            assert (shown["group"], shown["labels"]) == ("lr", {"by": "hand", "sweep": "lr"})
            for selector in ("group:lr", "label:by=hand", f"user:{ME}", f"user:{os.geteuid()}"):
                listed = await client.ask("ls", jobs=[selector])
                assert [one["id"] for one in listed["jobs"]] == [job], selector

    run(path, talk)


def test_labels_of_a_submit_and_of_its_jobs_add_up(path: Path) -> None:
    async def talk(served: Served) -> None:
        async with served.client() as client:
            common = {"group": "lr", "labels": {"a": "1", "b": "1"}}
            client.send("submit", count=2, common=common)
            client.raw(b'{"command":"x","labels":{"b":"2"}}\n{"command":"y","group":""}\n')
            first = (await client.read())["first"]
            specs = [served.daemon.store.spec(first + n) for n in range(2)]
            assert [spec.group for spec in specs] == ["lr", ""]
            assert [spec.labels for spec in specs] == [("a=1", "b=2"), ("a=1", "b=1")]

    run(path, talk)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"group": "a b"}, 'a group has letters, digits, ".", "_" and "-", 64 at most'),
        ({"labels": {"a": "b c"}}, "a label is KEY=VALUE"),
        ({"labels": {f"k{n}": "v" for n in range(33)}}, "a job has at most 32 labels"),
    ],
)
def test_what_cannot_be_is_refused(path: Path, fields: dict[str, Any], why: str) -> None:
    async def talk(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("submit", job={"command": "x", **fields})
            assert reply["message"].startswith("cannot submit: ")
            assert why in reply["message"]

    run(path, talk)


def test_all_verbs_take_groups_labels_and_users(path: Path) -> None:
    async def talk(served: Served) -> None:
        async with served.client() as client:
            await submit(client, 2)
            jobs = await submit(client, 2, group="lr", labels={"a": "b"})
            await submit(client, labels={"a": "b"})
            assert (await client.ask("hold", jobs=["group:lr"]))["jobs"] == jobs
            assert (await client.ask("release", jobs=["label:a=b"]))["jobs"] == jobs
            reply = await client.ask("cancel", jobs=[f"user:{ME}"])
            assert len(reply["jobs"]) == 5
            reply = await client.ask("hold", jobs=["group:none"])
            assert (reply["kind"], reply["message"]) == (
                "not-found",
                'cannot hold "group:none": no job is in this group',
            )

    run(path, talk)


def test_a_word_about_a_group(path: Path) -> None:
    async def talk(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("group", name="lr", limit=1, max_fails=2)
            assert reply["group"] == {
                "name": "lr", "limit": 1, "running": 0, "waiting": 0, "held": 0, "done": 0,
                "failed": 0, "max_fails": 2,
            }  # fmt: skip
            first, second = await submit(client, 2, group="lr")
            told = await client.ask("why", jobs=[second])
            assert told["reasons"][0]["reason"] == "waits for a place in group lr: 1 of 1 run"
            served.daemon.start(first)
            served.daemon.end(first, 1)
            reply = await client.ask("group", name="lr", limit="none", max_fails="default")
            view = reply["group"]
            assert (view["limit"], view["running"], view["failed"]) == (None, 1, 1)
            assert "fails" not in view
            said = [event for event in served.daemon.asked if isinstance(event, GateRequested)]
            assert [(e.limit, e.max_fails) for e in said] == [(1, 2), (NONE, DEFAULT)]
            await client.ask("group", name="lr")
            assert len(served.daemon.asked) == 4, "a look asks for nothing"

    run(path, talk)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": "a b"}, "a group has letters"),
        ({"name": "lr", "limit": -1}, "limit must be from 0 to 1000000"),
        ({"name": "lr", "max_fails": 10**7}, "max_fails must be from 0 to 1000000"),
        ({"name": "lr", "limit": "many"}, ""),
    ],
)
def test_no_word_about_a_group(path: Path, fields: dict[str, Any], why: str) -> None:
    async def talk(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask("group", **fields)
            assert reply["type"] == "error"
            assert why in reply["message"]
            assert not served.daemon.asked

    run(path, talk)


def test_groups_as_they_are(path: Path) -> None:
    async def talk(served: Served) -> None:
        gates = {
            "group:lr": Rule(2, 1),
            "group:none-yet": Rule(windows=NIGHTS),
            "user:*": Rule(limit=9),
        }
        served.daemon.post(RulesChanged(Rules(gates)))
        windows = {"group:none-yet": Window(False, 10**12, "which opens at 22:00")}
        served.daemon.post(WindowsTurned("clock", windows))
        async with served.client() as client:
            jobs = await submit(client, 3, group="lr")
            await submit(client, 1, group="other", held=True)
            served.daemon.end(jobs[0], 1)
            lr, none, other = (await client.ask("groups"))["groups"]
            assert lr == {
                "name": "lr", "limit": 2, "running": 1, "waiting": 0, "held": 1, "done": 1,
                "failed": 1, "max_fails": 1, "fails": 1,
            }  # fmt: skip
            assert none["name"] == "none-yet"
            assert none["closed"] == "the window nights, which opens at 22:00"
            assert (other["held"], other["limit"]) == (1, None)
            reply = await client.ask("submit", job={"command": "x", "group": "lr"})
            assert reply["note"] == ("held since 1 job of group lr failed: gpuctl release group:lr")
            released = await client.ask("release", jobs=["group:lr"])
            assert released["jobs"] == [jobs[2], reply["first"]]
            assert "fails" not in (await client.ask("groups"))["groups"][0]

    run(path, talk)


def test_users_as_they_are(path: Path) -> None:
    async def talk(served: Served) -> None:
        uid = os.geteuid()
        rules = Rules(
            {f"user:{uid}": Rule(3), "user:77": Rule(1)},
            users={77: "seventy"},
            half_life_ms=1_000_000,
            weights={77: 2.5},
        )
        served.daemon.post(RulesChanged(rules))
        async with served.client() as client:
            await submit(client, 5, gpus=1)
            reply = await client.ask("users")
            assert reply["half_life_s"] == 1000
            me, other = reply["users"]
            assert (me["user"], me["uid"], me["limit"]) == (ME, uid, 3)
            assert (me["running"], me["waiting"], me["held"]) == (2, 3, 0)
            assert 0 < me["used_s"] < 1
            assert other == {
                "user": "seventy", "uid": 77, "limit": 1, "running": 0, "waiting": 0,
                "held": 0, "weight": 2.5, "used_s": 0.0,
            }  # fmt: skip
            served.daemon.post(RulesChanged(Rules()))
            [me] = (await client.ask("users"))["users"]
            assert "used_s" not in me

    run(path, talk)
