"""The one rule of all verbs that change jobs: ten are changed unasked, more are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpud.ctl.agree import MOST
from gpud.protocol import replies, requests

from . import samples
from .fake_server import FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]
VERBS: dict[str, tuple[type, type, list[str]]] = {
    "cancel": (requests.Cancel, replies.Cancelled, []),
    "retry": (requests.Retry, replies.Retried, []),
    "hold": (requests.Hold, replies.HeldReply, []),
    "release": (requests.Release, replies.Released, []),
    "edit": (requests.Edit, replies.Edited, ["--priority", "9"]),
    "move": (requests.Move, replies.Moved, ["--last"]),
}
STATE = {"retry": "done", "release": "held"}
FIRST = 101


def jobs(verb: str, count: int) -> tuple[replies.JobView, ...]:
    """So many that the verb applies to, and one that it does not."""
    state = STATE.get(verb, "queued")
    make = samples.done if state == "done" else samples.job
    other = samples.job(99) if state == "done" else samples.done(99)
    more = {} if state == "done" else {"state": state}
    return (other, *(make(FIRST + n, **more) for n in range(count)))


def serve(server: FakeServer, verb: str, count: int) -> None:
    request, reply, _ = VERBS[verb]
    known = jobs(verb, count)

    def listed(asked: requests.Ls) -> replies.JobsReply:
        """Jobs that are named by themselves, or all of them."""
        ids = [int(word) for word in asked.jobs if word.isdecimal()]
        found = [job for job in known if job.id in ids or not ids or "@" in asked.jobs]
        return replies.JobsReply(id=0, jobs=tuple(found), more=0)

    server.answers = {
        requests.Ls: listed,
        request: lambda asked: reply(id=0, jobs=tuple(range(FIRST, FIRST + count))),
    }


@pytest.mark.parametrize("selector", ["all", "state:queued", "name:sweep", "source:night", "3-90"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_script_changes_ten_and_no_more_without_yes(
    server: FakeServer, process: Gpuctl, verb: str, selector: str
) -> None:
    request, _, options = VERBS[verb]
    serve(server, verb, MOST)
    assert process(verb, selector, *options).status == 0
    assert len(server.asked(request)) == 1
    serve(server, verb, MOST + 1)
    result = process(verb, selector, *options)
    assert result.status == 2
    assert result.err == (
        f"gpuctl: cannot {verb} 11 jobs without asking: this is not a terminal\n"
        "  add --yes if that is what you want\n"
    )
    assert len(server.asked(request)) == 1
    assert process(verb, selector, *options, "--yes").status == 0
    assert server.asked(request)[1].jobs == ("101-111",)


@pytest.mark.parametrize("verb", VERBS)
def test_it_does_not_matter_how_they_are_named(
    server: FakeServer, process: Gpuctl, verb: str
) -> None:
    request, _, options = VERBS[verb]
    serve(server, verb, 11)
    ten = [str(FIRST + n) for n in range(10)]
    assert process(verb, *ten, ten[0], *options).status == 0, "the same twice is one"
    for more in ("111", "@", "name:sweep"):
        result = process(verb, *ten, more, *options)
        assert result.status == 2
        assert f"cannot {verb} 11 jobs without asking" in result.err
    assert len(server.asked(request)) == 1


@pytest.mark.parametrize(
    ("typed", "status", "sent"), [(b"y\n", 0, 1), (b"n\n", 1, 0), (b"\n", 1, 0), (b"\x04", 1, 0)]
)
@pytest.mark.parametrize("verb", VERBS)
def test_on_a_terminal_a_person_is_asked(
    server: FakeServer, terminal: Gpuctl, verb: str, typed: bytes, status: int, sent: int
) -> None:
    request, _, options = VERBS[verb]
    serve(server, verb, 12)
    result = terminal(verb, "all", *options, typed=typed)
    assert result.status == status, result
    assert f"{verb} 12 jobs (101-112)? [y/N] " in result.out
    assert len(server.asked(request)) == sent
    assert ("nothing changed" in result.out) == (not sent)


@pytest.mark.parametrize("verb", VERBS)
def test_on_a_terminal_ten_are_changed_unasked(
    server: FakeServer, terminal: Gpuctl, verb: str
) -> None:
    request, _, options = VERBS[verb]
    serve(server, verb, 10)
    result = terminal(verb, "all", *options)
    assert result.status == 0, result
    assert "?" not in result.out
    assert len(server.asked(request)) == 1


def test_of_many_refusals_the_first_are_told(server: FakeServer, gpuctl: Gpuctl) -> None:
    refused = tuple(replies.RefusedView(n, f"cannot cancel job {n}: no") for n in range(30))
    serve(server, "cancel", 0)
    server.answers[requests.Cancel] = replies.Cancelled(id=0, jobs=(), refused=refused)
    result = gpuctl("cancel", "42")
    assert result.status == 1
    assert result.err.count("cannot cancel job") == 10
    assert result.err.endswith("gpuctl: 20 more were refused; --json has all of them\n")


@pytest.mark.parametrize("verb", VERBS)
def test_an_array_is_many(server: FakeServer, process: Gpuctl, verb: str) -> None:
    request, _, options = VERBS[verb]
    serve(server, verb, 0)
    state = STATE.get(verb, "queued")
    array = samples.job(42, state=state, array=42, indices="0-10", count=11, ids=((42, 52),))
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=(array,), more=0)
    result = process(verb, "42", *options)
    assert result.status == 2
    assert f"cannot {verb} 11 jobs without asking" in result.err
    assert process(verb, "42", *options, "--yes").status == 0
    assert [asked.jobs for asked in server.asked(request)] == [("42",)]
