"""The verbs that look: what they ask for, and what of the answer they print in a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from gpud.ctl import events
from gpud.errors import GpudError
from gpud.protocol import replies, requests
from gpud.protocol.replies import EventReply, Following

from . import samples
from .fake_server import DROP, FakeServer
from .tools import Result

Gpuctl = Callable[..., Result]


@pytest.fixture(autouse=True)
def daemon(server: FakeServer) -> None:
    server.answers = {
        requests.Status: samples.STATUS,
        requests.Ls: replies.JobsReply(id=0, jobs=samples.JOBS, more=0),
        requests.Show: replies.Shown(id=0, jobs=(samples.DETAIL,)),
        requests.Why: replies.Reasons(
            id=0, reasons=(replies.ReasonView(45, "queued", "waits for its turn"),)
        ),
        requests.Gpus: replies.GpusReply(id=0, gpus=samples.GPUS),
        requests.Sources: replies.SourcesReply(id=0, sources=samples.SOURCES),
        requests.SourceStop: replies.SourceStopped(id=0, name="night"),
        requests.SourceStart: replies.SourceStarted(id=0, name="night"),
        requests.Drain: replies.Drained(id=0, active=2),
        requests.Undrain: replies.Undrained(id=0),
        requests.Reload: replies.Reloaded(id=0, changes=("GPU 3 was added", "log.level: restart")),
    }


@pytest.mark.parametrize(
    ("argv", "kind"),
    [(["status"], requests.Status), (["ls"], requests.Ls), (["show"], requests.Show),
     (["why"], requests.Why), (["gpus"], requests.Gpus), (["sources"], requests.Sources),
     (["drain"], requests.Drain), (["undrain"], requests.Undrain), (["reload"], requests.Reload),
     (["source", "stop", "night"], requests.SourceStop)],
)  # fmt: skip
def test_json_is_the_answer_without_what_belongs_to_the_connection(
    server: FakeServer, gpuctl: Gpuctl, argv: list[str], kind: type
) -> None:
    result = gpuctl(*argv, "--json")
    assert result.status == 0
    expected = json.loads(msgspec.json.encode(server.answers[kind]))
    del expected["type"], expected["id"]
    assert json.loads(result.out) == expected
    assert result.out.count("\n") == 1


def test_gpuctl_alone_is_status(gpuctl: Gpuctl) -> None:
    assert gpuctl().out == gpuctl("status").out
    assert gpuctl().out.startswith("gpud 0.1.0 on node7: 4 running, 31 queued, 1 held, 120 succ")


@pytest.mark.parametrize(
    ("argv", "jobs", "limit"),
    [
        ([], (), 0),
        (["--limit", "7"], (), 7),
        (["--all"], ("all",), 0),
        (["--all", "--limit", "7"], ("all",), 7),
        (["state:failed", "3-9"], ("state:failed", "3-9"), 0),
        (["--json"], (), 0),
    ],
)
def test_what_ls_asks_for(
    server: FakeServer, gpuctl: Gpuctl, argv: list[str], jobs: tuple[str, ...], limit: int
) -> None:
    gpuctl("ls", *argv)
    assert [(request.jobs, request.limit) for request in server.requests] == [(jobs, limit)]


def test_ls_in_a_pipe_has_every_column_and_cuts_nothing(gpuctl: Gpuctl) -> None:
    head, *rows = gpuctl("ls").out.splitlines()
    assert head.split() == [
        "ID", "STATE", "EXIT", "GPU", "TRY", "PRIO", "TIME", "ENDED", "NAME", "SOURCE", "WHY",
        "COMMAND",
    ]  # fmt: skip
    assert [int(row.split()[0]) for row in rows] == list(range(36, 48))
    assert rows[7].endswith("x" * 120)
    assert rows[2].endswith("./simulate\\x1b[31m⏎--until 'dark'")
    at = head.index("COMMAND")
    assert all(row[at - 1] == " " for row in rows[:-1])


def test_more_than_the_limit(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=samples.JOBS[:1], more=70)
    assert gpuctl("ls", "--limit", "1").out.endswith("\nand 70 more: --limit 0 shows all\n")


def test_no_jobs(server: FakeServer, gpuctl: Gpuctl, terminal: Callable[..., Result]) -> None:
    server.answers[requests.Ls] = replies.JobsReply(id=0, jobs=(), more=0)
    assert gpuctl("ls").out == ""
    assert terminal("ls").out == 'no jobs yet; try: gpuctl submit "nvidia-smi"\n'
    assert terminal("ls", "state:failed").out == "no such jobs\n"
    assert server.requests[1].limit == 50


@pytest.mark.parametrize("kind", [requests.Show, requests.Why])
def test_without_a_job_it_is_the_last_one(server: FakeServer, gpuctl: Gpuctl, kind: type) -> None:
    verb = kind.__name__.lower()
    gpuctl(verb)
    gpuctl(verb, "42", "name:x")
    assert [request.jobs for request in server.asked(kind)] == [("@",), ("42", "name:x")]


def test_why(server: FakeServer, gpuctl: Gpuctl) -> None:
    assert gpuctl("why", "45").out == "waits for its turn\n"
    server.answers[requests.Why] = replies.Reasons(
        id=0,
        reasons=(
            replies.ReasonView(45, "queued", "waits for its turn"),
            replies.ReasonView(46, "held", "held: gpuctl release 46"),
        ),
    )
    assert gpuctl("why", "45", "46").out == "45: waits for its turn\n46: held: gpuctl release 46\n"


def test_why_at_length_is_for_one_job(server: FakeServer, gpuctl: Gpuctl) -> None:
    reason = "placed on GPU 0: the first in the order of the pool that had room"
    one = replies.ReasonView(45, "active", "running on GPU 0", (reason,))
    server.answers[requests.Why] = replies.Reasons(id=0, reasons=(one,))
    assert gpuctl("why", "45").out == "running on GPU 0\n"
    assert gpuctl("why", "45", "-v").out == f"running on GPU 0\n  {reason}\n"
    assert [request.verbose for request in server.requests] == [False, True]
    two = replies.ReasonView(46, "done", "done: it succeeded")
    server.answers[requests.Why] = replies.Reasons(id=0, reasons=(one, two))
    assert gpuctl("why", "45", "46", "-v").out == "45: running on GPU 0\n46: done: it succeeded\n"


@pytest.mark.parametrize(
    ("attempts", "lines"),
    [
        ((), ["it was never started"]),
        ((samples.attempt(9, 1, phase="", outcome="not-started", why="no /x", started_at_ms=0,
                          lease=("cpu:62",), rule="it needs no GPU"),),
         ["placed on the CPU: it needs no GPU", "not-started: no /x"]),
        ((samples.attempt(9, 1, phase="", outcome="succeeded", ended_at_ms=samples.NOW_MS,
                          gpu_util=0, rule="the first"),),
         ["placed on GPU 0: the first", "succeeded after 3m12s", "cost: GPU at 0 %"]),
    ],
)  # fmt: skip
def test_why_at_length_of_a_job_that_is_done(
    server: FakeServer, gpuctl: Gpuctl, attempts: tuple[replies.AttemptView, ...], lines: list[str]
) -> None:
    ended = replies.ReasonView(9, "done", "done: it is over", attempts=attempts)
    server.answers[requests.Why] = replies.Reasons(id=0, reasons=(ended,))
    assert gpuctl("why", "9").out == "done: it is over\n"
    told = gpuctl("why", "9", "-v").out.splitlines()
    assert told == ["done: it is over", *(f"  {line}" for line in lines)]


def test_a_try_that_goes_on_is_not_told_twice(server: FakeServer, gpuctl: Gpuctl) -> None:
    first = samples.attempt(9, 1, phase="", outcome="failed", exit_code=1, started_at_ms=0)
    active = replies.ReasonView(
        9, "active", "running on GPU 0", ("placed on GPU 0: x",), (first, samples.attempt(9, 2))
    )
    server.answers[requests.Why] = replies.Reasons(id=0, reasons=(active,))
    assert gpuctl("why", "9", "-v").out.splitlines()[1:] == [
        "  placed on GPU 0: x",
        "  try 1: placed on GPU 0",
        "  try 1: failed with exit status 1",
    ]


WRONG = "on a wrong GPU: pid 4799 (python) uses {}, the job was given {}"


@pytest.mark.parametrize("argv", [["show", "37"], ["events"]])
def test_gpus_in_a_story_are_called_as_in_the_table(
    server: FakeServer, gpuctl: Gpuctl, argv: list[str]
) -> None:
    follow(server, 6, list(samples.DETAIL.story))
    server.answers[requests.Gpus] = replies.GpusReply(id=0, gpus=samples.TROUBLED)
    assert WRONG.format("GPU 1", "GPU 0") in gpuctl(*argv).out
    assert len(server.asked(requests.Gpus)) == 1
    assert "GPU-00000001-aaaa" in gpuctl(*argv, "--json").out
    assert len(server.asked(requests.Gpus)) == 1
    server.answers[requests.Gpus] = GpudError("cannot say", kind="refused")
    assert WRONG.format("GPU-00000001", "GPU-00000000") in gpuctl(*argv).out


def test_a_story_without_gpus_asks_for_none(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Show] = replies.Shown(id=0, jobs=(samples.detail(samples.JOBS[9]),))
    gpuctl("show", "45")
    assert server.asked(requests.Gpus) == []


def test_not_found_is_3(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers[requests.Show] = GpudError(
        "cannot show job 43: no such job", kind="not-found", hint="gpuctl ls --all"
    )
    result = gpuctl("show", "43")
    assert (result.status, result.out) == (3, "")
    assert result.err == "gpuctl: cannot show job 43: no such job\n  gpuctl ls --all\n"


def test_about_the_daemon(gpuctl: Gpuctl) -> None:
    assert gpuctl("drain").out == "drained: nothing new starts, 2 jobs run on\n"
    assert gpuctl("undrain").out == "undrained: jobs start again\n"
    assert gpuctl("reload").out == "GPU 3 was added\nlog.level: restart\n"


def test_sources(server: FakeServer, gpuctl: Gpuctl) -> None:
    assert gpuctl("source", "stop", "night").out.startswith("source night stopped")
    assert gpuctl("source", "start", "night").out == "source night started\n"
    assert [request.name for request in server.requests] == ["night", "night"]
    wrong = gpuctl("source", "sotp", "night")
    assert wrong.status == 2
    assert "(did you mean stop?)" in wrong.err
    assert gpuctl("source", "stop").status == 2


NOTE = "the NVIDIA driver knows no GPU 7"


def test_the_note_about_gpus_is_beside_the_table(
    server: FakeServer, process: Callable[..., Result], terminal: Callable[..., Result]
) -> None:
    without = process("gpus")
    assert without.err == ""
    server.answers[requests.Gpus] = replies.GpusReply(id=0, gpus=samples.GPUS, note=NOTE)
    piped = process("gpus")
    assert (piped.out, piped.err) == (without.out, f"gpuctl: {NOTE}\n")
    assert terminal("gpus", NO_COLOR="1").out.endswith(f"\n{NOTE}\n")
    assert json.loads(process("gpus", "--json").out)["note"] == NOTE


@pytest.mark.parametrize(
    ("count", "afresh", "told"),
    [
        (1, True, "1 GPU healed: the next look decides"),
        (2, False, "2 GPUs healed: the next look decides"),
        (0, False, "no GPU was quarantined"),
        (0, True, "no GPU was quarantined; the driver is asked afresh"),
    ],
)
def test_healing(server: FakeServer, gpuctl: Gpuctl, count: int, afresh: bool, told: str) -> None:
    server.answers[requests.Heal] = replies.Healed(id=0, count=count, afresh=afresh)
    assert gpuctl("gpus", "heal", "3", "GPU-8f6a").out == f"{told}\n"
    assert [request.gpus for request in server.requests] == [("3", "GPU-8f6a")]
    assert gpuctl("gpus", "hael").status == 2


def follow(server: FakeServer, last: int, past: list[replies.EventView]) -> None:
    def answer(request: requests.Follow) -> list[object]:
        since = last if request.since is None else min(request.since, last)
        new = [EventReply(id=0, event=event) for event in past if event.seq > since]
        return [Following(id=0, since=since), *new]

    server.answers[requests.Follow] = answer


def test_events_of_the_past_and_no_more(server: FakeServer, gpuctl: Gpuctl) -> None:
    follow(server, 5, list(samples.DETAIL.story))
    lines = gpuctl("events").out.splitlines()
    assert lines[0] == "     1  2026-11-21 07:53:21       37  submitted"
    assert lines[4].endswith('failed with exit status 2, killed="sleep (4801)",tee')
    since = gpuctl("events", "--since", "3", "--json").out.splitlines()
    assert [json.loads(line)["seq"] for line in since] == [4, 5]
    assert json.loads(since[0]) == json.loads(msgspec.json.encode(samples.DETAIL.story[3]))
    assert gpuctl("events", "--since", "5").out == ""
    assert gpuctl("events", "--since", "99").out == ""


def test_only_the_last_events_without_since(server: FakeServer, gpuctl: Gpuctl) -> None:
    follow(server, 1000, [samples.event(seq, 1, "started", 1) for seq in range(1, 1001)])
    lines = gpuctl("events").out.splitlines()
    assert len(lines) == 50
    assert lines[-1].split()[0] == "1000"


def test_a_last_event_that_was_pruned(
    server: FakeServer, gpuctl: Gpuctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.1)
    follow(server, 9, list(samples.DETAIL.story))
    assert len(gpuctl("events").out.splitlines()) == 6


def test_events_about_many_jobs_and_about_gpud(server: FakeServer, gpuctl: Gpuctl) -> None:
    many = replies.EventView(1, samples.NOW_MS, 42, 0, "submitted", {}, count=100)
    follow(server, 2, [many, samples.event(2, 0, "drained")])
    first, second = gpuctl("events").out.splitlines()
    assert first.split()[3:] == ["42-141", "submitted"]
    assert second.split()[3:] == ["gpud", "drained"]


def test_following_events_over_a_restart(server: FakeServer, gpuctl: Gpuctl) -> None:
    """The second connection goes on where the first one broke off."""
    story = samples.DETAIL.story
    answers = iter(
        [
            [Following(id=0, since=0), EventReply(id=0, event=story[0]), DROP],
            [Following(id=0, since=1), EventReply(id=0, event=story[1]), replies.End(id=0)],
        ]
    )
    server.answers[requests.Follow] = lambda _: next(answers)
    result = gpuctl("events", "-f")
    assert [line.split()[0] for line in result.out.splitlines()] == ["1", "2"]
    assert [request.since for request in server.asked(requests.Follow)] == [None, 1]
