"""cancel, retry, hold, pause and others: what is sent, and what is said. See test_agree.py, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gpud.errors import GpudError
from gpud.protocol import replies, requests

from .fake_server import FakeServer
from .samples import JOBS
from .tools import Result

Gpuctl = Callable[..., Result]
REQUEST = {
    "cancel": requests.Cancel, "retry": requests.Retry, "hold": requests.Hold,
    "release": requests.Release, "pause": requests.Pause, "continue": requests.Continue,
    "checkpoint": requests.Checkpoint,
}  # fmt: skip
REPLY = {
    "cancel": replies.Cancelled, "retry": replies.Retried, "hold": replies.HeldReply,
    "release": replies.Released, "pause": replies.Paused, "continue": replies.Continued,
    "checkpoint": replies.Checkpointed,
}  # fmt: skip


@pytest.fixture(autouse=True)
def obedient(server: FakeServer) -> None:
    """Everything that is asked for is done; a lookup finds the jobs of samples.py."""

    def changed(verb: str) -> Callable[[Any], Any]:
        return lambda request: REPLY[verb](id=0, jobs=tuple(ids_of(request.jobs)))

    server.answers = {REQUEST[verb]: changed(verb) for verb in REQUEST}
    server.answers[requests.Ls] = lambda request: replies.JobsReply(
        id=0,
        jobs=JOBS if request.jobs else tuple(j for j in JOBS if j.state != "done"),
        more=0,
    )


def ids_of(selectors: tuple[Any, ...]) -> list[int]:
    found: list[int] = []
    for selector in map(str, selectors):
        low, _, high = selector.partition("-")
        found += range(int(low), int(high or low) + 1) if low.isdecimal() else [42]
    return found


@pytest.mark.parametrize(
    ("verb", "said"),
    [("cancel", "cancelling"), ("retry", "queued again"), ("hold", "held"),
     ("release", "released"), ("pause", "paused; GPU memory stays held"),
     ("continue", "continued"), ("checkpoint", "asked to save and leave")],
)  # fmt: skip
def test_jobs_named_by_themselves_are_sent_at_once(
    server: FakeServer, gpuctl: Gpuctl, verb: str, said: str
) -> None:
    one = gpuctl(verb, "42")
    assert (one.status, one.out, one.err) == (0, f"job 42: {said}\n", "")
    assert gpuctl(verb, "@").status == 0
    several = gpuctl(verb, "7", "8", "9", "12")
    assert several.out == f"4 jobs (7-9, 12): {said}\n"
    sent = [request.jobs for request in server.asked(REQUEST[verb])]
    assert sent == [("42",), ("@",), ("7", "8", "9", "12")]


def test_a_grace_of_its_own(server: FakeServer, gpuctl: Gpuctl) -> None:
    gpuctl("cancel", "--grace", "1m", "42")
    gpuctl("cancel", "42")
    gpuctl("checkpoint", "--grace", "5m", "42")
    sent = [request.grace_s for request in server.asked(requests.Cancel)]
    assert sent == [60.0, None]
    assert [request.grace_s for request in server.asked(requests.Checkpoint)] == [300.0]


def test_each_refused_one_has_its_sentence(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Cancel] = replies.Cancelled(
        id=0,
        jobs=(42,),
        refused=(
            replies.RefusedView(43, "cannot cancel job 43: it is done"),
            replies.RefusedView(44, "cannot cancel job 44: it is done"),
        ),
    )
    result = gpuctl("cancel", "42", "43", "44")
    assert result.status == 1
    assert result.out == "job 42: cancelling\n"
    assert result.err == (
        "gpuctl: cannot cancel job 43: it is done\ngpuctl: cannot cancel job 44: it is done\n"
    )


def test_with_yes_exactly_those_that_were_found_are_sent(
    server: FakeServer, gpuctl: Gpuctl
) -> None:
    assert gpuctl("retry", "state:failed", "7", "--yes").status == 0
    (request,) = server.asked(requests.Retry)
    assert request.jobs == ("7", "36-41")
    (lookup,) = server.asked(requests.Ls)
    assert (lookup.jobs, lookup.limit) == (("state:failed",), 0)


@pytest.mark.parametrize(
    ("verb", "states", "sent"),
    [
        ("pause", ("state:running",), ("42", "43")),
        ("continue", ("state:paused",), ("47",)),
        ("checkpoint", ("state:running", "state:paused"), ("47",)),
    ],
)
def test_only_those_are_meant_that_the_verb_can_do_something_about(
    server: FakeServer, gpuctl: Gpuctl, verb: str, states: tuple[str, ...], sent: tuple[str, ...]
) -> None:
    assert gpuctl(verb, "all", "--yes").status == 0
    (lookup,) = server.asked(requests.Ls)
    (request,) = server.asked(REQUEST[verb])
    assert (lookup.jobs, request.jobs) == (states, sent)


def test_all_does_not_ask_for_the_whole_history(server: FakeServer, gpuctl: Gpuctl) -> None:
    assert gpuctl("cancel", "all", "-y").out == "6 jobs (42-47): cancelling\n"
    (lookup,) = server.asked(requests.Ls)
    assert lookup.jobs == ("state:queued", "state:held", "state:active")
    assert lookup.limit == 0


def test_what_is_more_than_one_answer_holds_is_asked_for_page_by_page(
    server: FakeServer, gpuctl: Gpuctl
) -> None:
    def page(request: requests.Ls) -> replies.JobsReply:
        rest = [job for job in sorted(JOBS, key=lambda job: job.id) if job.id > request.after]
        return replies.JobsReply(id=0, jobs=tuple(rest[:3]), more=len(rest[3:]))

    server.answers[requests.Ls] = page
    assert gpuctl("cancel", "all", "-y").out == "6 jobs (42-47): cancelling\n"
    assert len(gpuctl("ls", "all").out.splitlines()) == 1 + len(JOBS)


@pytest.mark.parametrize("verb", REQUEST)
def test_what_matches_nothing_is_said_of_the_verb(
    server: FakeServer, gpuctl: Gpuctl, verb: str
) -> None:
    server.answers[requests.Ls] = GpudError(
        'cannot list "name:x": no job has this name', kind="not-found", hint="gpuctl ls --all"
    )
    result = gpuctl(verb, "name:x")
    assert result.status == 3
    assert result.err == (
        f'gpuctl: cannot {verb} "name:x": no job has this name\n  gpuctl ls --all\n'
    )


def test_nothing_to_do(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=JOBS[:3], more=0)
    result = gpuctl("cancel", "state:done")
    assert (result.status, result.out) == (0, "nothing to cancel\n")
    assert not server.asked(requests.Cancel)


def test_json(gpuctl: Gpuctl) -> None:
    assert json.loads(gpuctl("hold", "42", "--json").out) == {"jobs": [42], "refused": []}


def test_no_job_is_a_usage_error(gpuctl: Gpuctl) -> None:
    result = gpuctl("cancel")
    assert result.status == 2
    assert result.err.startswith("gpuctl: cannot cancel: JOBS ... is missing\n")
