"""What gpuctl says of groups, labels and users, and what it sends."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from msgspec import UNSET

from gpud.protocol.replies import GroupRuled, GroupsReply, Submitted, UsersReply
from gpud.protocol.requests import Group, Groups, Submit, Users

from . import samples
from .fake_server import FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]
HELD = "held since 3 jobs of group lr failed: gpuctl release group:lr"


@pytest.mark.parametrize(
    ("words", "limit", "max_fails"),
    [
        ([], UNSET, UNSET),
        (["--limit", "4"], 4, UNSET),
        (["--limit", "none", "--max-fails", "0"], "none", 0),
        (["--max-fails=default"], UNSET, "default"),
    ],
)
def test_a_word_about_a_group(
    server: FakeServer, gpuctl: Gpuctl, words: list[str], limit: object, max_fails: object
) -> None:
    server.answers = {Group: GroupRuled(id=0, group=samples.GROUPS[0])}
    result = gpuctl("group", "lr", *words)
    assert result.status == 0
    assert result.out.splitlines()[1].split()[:4] == ["lr", "4", "of", "4"]
    (asked,) = server.asked(Group)
    assert (asked.name, asked.limit, asked.max_fails) == ("lr", limit, max_fails)


@pytest.mark.parametrize("value", ["-1", "1.5", "all", "Default"])
def test_no_word_about_a_group(server: FakeServer, gpuctl: Gpuctl, value: str) -> None:
    result = gpuctl("group", "lr", "--limit", value)
    assert result.status == 2
    assert f'--limit "{value}": write a number, none, or default' in result.err
    assert not server.requests


def test_groups_and_users_as_json(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {
        Groups: GroupsReply(id=0, groups=samples.GROUPS),
        Users: UsersReply(id=0, users=samples.USERS, half_life_s=604800.0),
    }
    groups = json.loads(gpuctl("groups", "--json").out)
    assert [group["name"] for group in groups["groups"]][:2] == ["lr", "broken"]
    users = json.loads(gpuctl("users", "--json").out)
    assert (users["half_life_s"], users["users"][0]["used_s"]) == (604800.0, 123456.7)


def test_without_any_a_pipe_gets_nothing(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {Groups: GroupsReply(id=0, groups=())}
    assert gpuctl("groups").out == ""


def test_what_a_submit_belongs_to(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {Submit: Submitted(id=0, first=42, count=1)}
    gpuctl("submit", "--group", "lr", "-l", "sweep=lr", "-lseed=1", "--label=seed=2", "true")
    (request,) = server.asked(Submit)
    assert request.job.group == "lr"
    assert request.job.labels == {"sweep": "lr", "seed": "2"}


def test_a_submit_that_is_held_at_once_says_why(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {Submit: Submitted(id=0, first=42, count=1, note=HELD)}
    result = gpuctl("submit", "--group", "lr", "true")
    assert (result.status, result.out, result.err) == (0, "42\n", f"gpuctl: {HELD}\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--group", "a b"], '--group "a b": a group has letters, digits'),
        (["-l", "sweep"], '-l "sweep": a label is KEY=VALUE'),
        (["--label", "a=b,c=d"], '--label "a=b,c=d": a label is KEY=VALUE'),
    ],
)
def test_what_cannot_be(server: FakeServer, gpuctl: Gpuctl, words: list[str], why: str) -> None:
    result = gpuctl("submit", *words, "true")
    assert result.err.startswith(f"gpuctl: cannot submit: {why}")
    assert (result.status, server.requests) == (2, [])
