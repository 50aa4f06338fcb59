"""Who may ask for what: every request type, every kind of caller; and what each may see."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.control import server as server_module
from gpud.control import sights
from gpud.control.access import (
    RIGHTS,
    Caller,
    Policy,
    Right,
    is_administrator,
    may,
    may_connect,
    may_see,
    right_of,
)
from gpud.control.guard import Guard
from gpud.control.meter import BURST_S, Meter
from gpud.control.server import ControlServer
from gpud.core.events import CancelRequested, HoldRequested, JobsSubmitted
from gpud.core.model import JobId, JobSpec, NewJob
from gpud.errors import GpudError
from gpud.protocol import replies, requests
from gpud.protocol.framing import decode_request
from gpud.protocol.replies import AttemptView, EventView, JobDetail, JobView, Reply
from gpud.protocol.requests import AnyRequest

from .fake_daemon import FakeDaemon
from .talking import Served, run

GROUP, ADMINS, STAFF = 500, 501, 502
SYSTEM = Policy(system=True, group=GROUP, admins=ADMINS, max_priority=0)
ALICE = Caller(61000, frozenset((61000, GROUP)), 11)
BOB = Caller(61001, frozenset((61001, GROUP)), 12)
CAROL = Caller(61002, frozenset((61002, GROUP, ADMINS)), 13)
ROOT = Caller(0, frozenset((0,)), 14)
GOLDEN = Path(__file__).parents[1] / "protocol" / "golden" / "v1"

# What users of a shared machine may do: written down twice, here and in the table.
ALL = "ping submit status ls show why wait follow gpus groups users sources metrics"
OWN = "cancel retry hold release edit move swap pause continue checkpoint"
ADMIN = "drain undrain heal group source-stop source-start reload prune"


def examples() -> list[Any]:
    return [decode_request(path.read_bytes()) for path in sorted(GOLDEN.glob("request.*"))]


def tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def test_every_request_type_has_a_decision_and_it_is_the_one_written_down_here() -> None:
    expected = {
        **dict.fromkeys(ALL.split(), Right.EVERYBODY),
        **dict.fromkeys(OWN.split(), Right.OWNER),
        **dict.fromkeys(ADMIN.split(), Right.ADMINISTRATOR),
    }
    assert {tag(kind): RIGHTS.get(kind) for kind in get_args(AnyRequest)} == expected
    assert set(RIGHTS) == set(get_args(AnyRequest))


def test_a_type_that_is_not_in_the_table_is_for_administrators() -> None:
    class New(requests.RequestBase, frozen=True, tag="new"):
        pass

    assert right_of(New(id=1)) is Right.ADMINISTRATOR
    assert not may(SYSTEM, ALICE, New(id=1))


callers = st.builds(
    Caller,
    uid=st.sampled_from([0, 61000, 61001, 61002]),
    gids=st.frozensets(st.sampled_from([GROUP, ADMINS, STAFF])),
)
policies = st.builds(
    Policy,
    system=st.booleans(),
    group=st.sampled_from([None, GROUP]),
    admins=st.sampled_from([None, ADMINS]),
    show_commands=st.booleans(),
)
asked = st.sampled_from(examples())
owners = st.sampled_from([None, 0, 61000, 61001])


@given(policies, callers, asked, owners)
def test_what_holds_for_everybody(
    policy: Policy, caller: Caller, request: Any, owner: int | None
) -> None:
    allowed = may(policy, caller, request, owner)
    if caller.uid == 0 or not policy.system:
        assert allowed
    boss = caller.uid == 0 or not policy.system or (policy.admins in caller.gids)
    assert is_administrator(policy, caller) == boss
    if not boss and right_of(request) is Right.OWNER and owner is not None:
        assert allowed == (owner == caller.uid)
    if (
        not boss
        and tag(type(request)) in ADMIN.split()
        and right_of(request) is not Right.EVERYBODY
    ):
        assert not allowed
    # More groups never take a right away, but for what they do not concern.
    more = Caller(caller.uid, caller.gids | {ADMINS})
    assert not allowed or may(policy, more, request, owner)


@given(policies, callers, st.sampled_from([0, 61000, 61001]))
def test_who_sees_what_a_job_runs(policy: Policy, caller: Caller, owner: int) -> None:
    seen = may_see(policy, caller, owner)
    assert seen == (policy.show_commands or owner == caller.uid or is_administrator(policy, caller))


@given(policies, callers, st.sampled_from([0, 61000]))
def test_who_may_connect(policy: Policy, caller: Caller, daemon: int) -> None:
    allowed = may_connect(policy, caller, daemon)
    if caller.uid in (0, daemon):
        assert allowed
    elif not policy.system:
        assert not allowed
    else:
        assert allowed == (policy.group is None or policy.group in caller.gids)


def test_all_users_is_for_administrators_and_looking_at_a_group_for_all() -> None:
    everything = requests.Cancel(id=1, jobs=("all",), all_users=True)
    assert not may(SYSTEM, ALICE, everything, ALICE.uid)
    assert may(SYSTEM, CAROL, everything, ALICE.uid)
    assert may(SYSTEM, ALICE, requests.Group(id=1, name="lr"))
    assert not may(SYSTEM, ALICE, requests.Group(id=1, name="lr", limit=3))


# -- what is shown ---------------------------------------------------------------------------------

TELLING = (JobView, JobDetail, EventView, AttemptView, replies.ReasonView, replies.ArrayView)
HANDLED = {
    replies.JobsReply,
    replies.StatusReply,
    replies.Shown,
    replies.Reasons,
    replies.EventReply,  # Guard.events
}


def test_no_reply_type_that_tells_of_jobs_is_forgotten() -> None:
    kinds = {
        kind
        for kind in vars(replies).values()
        if isinstance(kind, type) and issubclass(kind, Reply) and kind is not Reply
    }

    def tells(kind: Any) -> bool:
        if kind in TELLING:
            return True
        return any(map(tells, get_args(kind)))

    hints = {kind: typing.get_type_hints(kind).values() for kind in kinds}
    assert {kind for kind in kinds if any(map(tells, hints[kind]))} == HANDLED


def test_every_field_of_a_job_is_shown_to_all_or_hidden_on_purpose() -> None:
    """A new field of these has to be thought about: add it where it belongs."""
    open_to_all = {
        *("job", "retries", "backoff_s", "backoff_max_s", "time_limit_s", "grace_s", "linger_s"),
        *("uid", "retry_on", "usual_vram_mib", "after", "after_any", "after_failed"),
        *("begin_ms", "deadline_ms"),
    }
    hidden = {"argv", "shell", "setup", "cwd", "env_names", "retry_args", "attempts", "story"}
    assert set(JobDetail.__struct_fields__) == open_to_all | hidden | {"audit"}
    assert sights.PLAIN.isdisjoint({"why", "processes", "changed", "program", "owner"})


# -- over a socket ---------------------------------------------------------------------------------


def system(path: Path, monkeypatch: pytest.MonkeyPatch, test: Any, policy: Policy = SYSTEM) -> None:
    """A server in system mode; `become(caller)`: who connects next is that one."""
    now = [ROOT]
    monkeypatch.setattr(server_module, "caller_at", lambda _: now[0])

    async def shared(served: Served) -> None:
        await served.server.close()
        served.server = ControlServer(served.daemon, served.path, policy=SYSTEM, warn=served._warn)
        # Making the socket root's is for the end-to-end tests.
        monkeypatch.setattr("gpud.control.address.check_directory", lambda _: None)
        monkeypatch.setattr("gpud.control.address.os.chown", lambda *_: None)
        served.server._policy = msgspec.structs.replace(policy, group=GROUP)
        await served.server.start()

        def become(caller: Caller) -> Any:
            now[0] = caller
            return served.client()

        await test(served, become)

    run(path, shared, FakeDaemon)


def test_what_is_anothers_is_refused_whatever_the_words(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(served: Served, become: Any) -> None:
        async with become(ALICE) as alice, become(BOB) as bob:
            hers = await alice.submit("echo private", name="hers", held=True, cwd="/home/alice")
            his = await bob.submit("true", name="his", held=True)
            for words in ([hers], [str(hers)], ["@~0", hers], [his, hers]):
                for verb in OWN.split():
                    more: dict[str, Any] = {"edit": {"change": {"name": "x"}}}.get(verb, {})
                    more = {"to": "last"} if verb == "move" else more
                    jobs = [his, hers] if verb == "swap" else words
                    reply = await bob.ask(verb, jobs=jobs, **more)
                    assert reply["kind"] == "refused", (verb, words, reply)
                    assert f"job {hers}: it belongs to 61000" in reply["message"]
            for verb in ADMIN.split():
                more = {"name": "x"} if verb.startswith("source") else {}
                more = {"name": "x", "limit": 3} if verb == "group" else more
                reply = await bob.ask(verb, **more)
                assert "only administrators may" in reply["message"], verb
            reply = await bob.ask("cancel", jobs=[f"{hers}-{his}", "state:held", "all"])
            assert reply["jobs"] == [his]
            reply = await bob.ask("cancel", jobs=["name:hers"])
            assert "none of these is yours" in reply["message"]
            told = [about for event, about in served.warnings if event == "request_refused"]
            assert {about["uid"] for about in told} == {BOB.uid}
            (view,) = (await bob.ask("ls", jobs=[hers]))["jobs"]
            assert (view["command"], view["user"], view["hidden"]) == ("", "61000", True)
            shown = await bob.ask("show", jobs=[hers], audit=True)
            text = str([shown, await bob.ask("status"), await bob.ask("why", jobs=[hers])])
            assert "private" not in text
            assert "/home/alice" not in text
            number = bob.send("follow", since=0)
            await bob.read_reply(number)
            assert (await bob.read_reply(number))["event"]["kind"] == "submitted"
        async with become(CAROL) as carol:
            assert (await carol.ask("cancel", jobs=[hers]))["jobs"] == [hers]

    system(path, monkeypatch, test)


def test_keys_of_two_users_do_not_meet(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(served: Served, become: Any) -> None:
        async with become(ALICE) as alice, become(BOB) as bob:
            job = {"command": "true", "cwd": "/"}
            first = await alice.ask("submit", job=job, key="night")
            other = await bob.ask("submit", job=job, key="night")
            again = await alice.ask("submit", job=job, key="night")
        assert (first["first"], other["first"], again["first"]) == (1, 2, 1)
        assert [served.daemon.state.jobs[n].uid for n in (1, 2)] == [61000, 61001]  # type: ignore[index]

    system(path, monkeypatch, test)


def test_nobody_gets_before_anothers_job(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(served: Served, become: Any) -> None:
        async with become(ALICE) as alice, become(BOB) as bob:
            mine = [await bob.submit(held=True)]
            hers = await alice.submit(held=True)
            mine += [await bob.submit(held=True) for _ in range(2)]
            for where in ({"to": "first"}, {"before": mine[0]}, {"after": mine[0]}):
                reply = await bob.ask("move", jobs=[mine[2]], **where)
                assert f"job {hers} of 61000 would be passed" in reply["message"]
            assert (
                "it belongs to" in (await bob.ask("move", jobs=[mine[2]], before=hers))["message"]
            )
            assert (await bob.ask("move", jobs=[mine[2]], before=mine[1]))["jobs"] == [mine[2]]
            assert (await bob.ask("move", jobs=[mine[0]], to="last"))["jobs"] == [mine[0]]
            for priority in (1, "urgent"):
                reply = await bob.ask("edit", jobs=[mine[1]], change={"priority": priority})
                assert "priority above 0" in reply["message"]
                job = {"command": "true", "cwd": "/", "priority": priority}
                assert "priority above 0" in (await bob.ask("submit", job=job))["message"]
            assert (await bob.ask("edit", jobs=[mine[1]], change={"priority": -1}))["jobs"]

    system(path, monkeypatch, test)


def test_connections_and_a_big_submit_have_bounds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = msgspec.structs.replace(SYSTEM, max_connections=2, max_submit_bytes=100)

    async def test(served: Served, become: Any) -> None:
        async with become(ALICE) as one, become(ALICE), become(ALICE) as third:
            assert "you have 2 connections" in third.greeting["message"]
            async with become(BOB) as bob:
                assert "gpud" in bob.greeting
            number = one.send("submit", count=2, common={"cwd": "/"})
            for _ in range(2):
                one.raw(b'{"command":"' + b"x" * 80 + b'"}\n')
            assert "past 0 MiB" in (await one.read_reply(number))["message"]
            assert (await one.ask("ls"))["jobs"] == []

    system(path, monkeypatch, test, policy)


def test_a_meter_lets_a_burst_through_and_then_a_rate() -> None:
    now = [100.0]
    meter = Meter(Policy(max_submits_per_s=2), clock=lambda: now[0])
    for _ in range(int(2 * BURST_S)):
        meter.submit(61000)
    with pytest.raises(GpudError, match="more than 2 submits a second"):
        meter.submit(61000)
    meter.submit(61001)
    now[0] += 0.5
    meter.submit(61000)
    with pytest.raises(GpudError):
        meter.submit(61000)


def test_a_queue_is_counted_only_when_it_may_be_full_and_once_a_second() -> None:
    now, counted = [100.0], [0]
    there = [2]

    def count() -> int:
        counted[0] += 1
        return there[0]

    meter = Meter(Policy(max_queued=5), clock=lambda: now[0])
    meter.queue(61000, 2, count)  # 2 there, 4 now
    meter.queue(61000, 1, count)
    assert counted == [1]
    for _ in range(3):
        with pytest.raises(GpudError, match="a user may have 5"):
            meter.queue(61000, 1, count)
    assert counted == [1]
    now[0], there[0] = 102.0, 0  # they have ended
    meter.queue(61000, 5, count)
    assert counted == [2]


def test_a_verb_that_forgot_to_ask_cannot_change_anothers_job() -> None:
    """The second look: at the event, whatever was made of the request."""
    daemon = FakeDaemon()
    told: list[str] = []
    hers = NewJob(JobSpec(command=b"true", uid=ALICE.uid))
    daemon.post(JobsSubmitted(1, (hers,)))
    meter = Meter(SYSTEM)
    request = requests.Cancel(id=1, jobs=(1,))

    def look_over(caller: Caller, event: Any) -> Any:
        guard = Guard(daemon, SYSTEM, caller, meter, lambda event, **_: told.append(event))
        return guard.look_over(request, event)

    for event in (CancelRequested(0, (JobId(1),)), HoldRequested(0, (JobId(1),))):
        for caller in (ALICE, CAROL, ROOT):
            assert look_over(caller, event) == event
        with pytest.raises(GpudError, match="it belongs to 61000"):
            look_over(BOB, event)
    assert told == ["request_refused"] * 2
    with pytest.raises(AssertionError, match="for another user"):
        look_over(BOB, JobsSubmitted(0, (hers,)))
    daemon.store.close()
