"""`gpuctl logs`: bytes from files, over attempts, until the jobs are done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from gpud.ctl import holes, logs
from gpud.ctl.logs import _offset_of_last
from gpud.errors import GpudError
from gpud.protocol import replies, requests
from gpud.protocol.replies import EventReply, Following
from gpud.store import punching

from .fake_server import DROP, FakeServer
from .samples import attempt, detail, done, event, job, running
from .tools import PROGRAM, Result

Gpuctl = Callable[..., Result]


class Box:
    """Jobs whose log files the test writes."""

    def __init__(self, server: FakeServer, directory: Path) -> None:
        self.server, self.directory = server, directory
        self.details: dict[int, replies.JobDetail] = {}
        server.answers = {
            requests.Show: lambda request: replies.Shown(
                id=0, jobs=tuple(self.details[int(n)] for n in self.chosen(request.jobs))
            )
        }

    def chosen(self, jobs: tuple[Any, ...]) -> list[Any]:
        return sorted(self.details) if jobs in (("@",), ("all",)) else list(jobs)

    def path(self, number: int, no: int = 1) -> Path:
        return self.directory / f"{number}.{no}.log"

    def put(self, number: int, *outputs: bytes, ended: bool = True) -> None:
        """A job with an attempt for each output."""
        attempts = []
        for no, output in enumerate(outputs, 1):
            self.path(number, no).write_bytes(output)
            attempts.append(attempt(number, no, log=str(self.path(number, no))))
        view = (done(number) if ended else running(number)) if outputs else job(number)
        self.details[number] = detail(view, tuple(attempts))


@pytest.fixture
def box(server: FakeServer, tmp_path: Path) -> Box:
    return Box(server, tmp_path)


def test_the_output_of_the_last_attempt_as_it_is(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42, b"first\n", b"\x1b[31mred\x1b[0m\r50%\rno end")
    assert gpuctl("logs", "42").out == "\x1b[31mred\x1b[0m\r50%\rno end"
    assert gpuctl("logs").status == 0


def test_bytes_stay_bytes(box: Box, process: Callable[..., Any], tmp_path: Path) -> None:
    box.put(42, bytes(range(256)) * 1000)
    out = tmp_path / "out"
    line = f'"{PROGRAM[0]}" -c "{PROGRAM[2]}" logs 42 > {out}'
    assert process(line, program=["sh", "-c"]).status == 0
    assert out.read_bytes() == bytes(range(256)) * 1000


def test_several_jobs_have_prefixes(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42, b"a\nb")
    box.put(43, b"c\n\nd\n")
    assert gpuctl("logs", "42", "43").out == "[42] a\n[42] b\n[43] c\n[43] \n[43] d\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [("0", ""), ("1", "c"), ("2", "b\nc"), ("3", "a\nb\nc"), ("9", "a\nb\nc")],
)
def test_the_last_lines(box: Box, gpuctl: Gpuctl, lines: str, expected: str) -> None:
    box.put(42, b"a\nb\nc")
    box.put(43, b"a\nb\nc\n")
    assert gpuctl("logs", "-n", lines, "42").out == expected
    assert gpuctl("logs", f"-n{lines}", "43").out == expected + ("\n" if expected else "")


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_the_last_lines_however_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(logs, "CHUNK", chunk)
    for content in (b"", b"\n", b"\n\n\n", b"abc", b"abc\n", b"a\n\nb", b"1\n22\n333\n4444\n"):
        path = tmp_path / "x"
        path.write_bytes(content)
        pieces = content.splitlines(keepends=True)
        for number in range(6):
            expected = b"".join(pieces[len(pieces) - number :]) if number else b""
            assert content[_offset_of_last(str(path), number) :] == (
                expected if number < len(pieces) else content if number else b""
            )


def test_a_job_that_has_not_started(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42)
    result = gpuctl("logs", "42")
    assert result.status == 1
    assert result.err == (
        "gpuctl: cannot show the log of job 42: it has not started\n"
        "  why: gpuctl why 42   wait for it: gpuctl logs -f 42\n"
    )


@pytest.mark.parametrize("argv", [["logs", "42"], ["logs", "-f", "42"]])
@pytest.mark.parametrize(
    ("view", "why"),
    [
        (done(42, "not-started", why="the option is not known"),
         "it could not be started: the option is not known"),
        (done(42, "not-started"), "it could not be started"),
        (done(42, "cancelled"), "it was cancelled before it started"),
    ],
)  # fmt: skip
def test_a_job_that_is_done_without_a_log(
    box: Box, server: FakeServer, gpuctl: Gpuctl, argv: list[str], view: Any, why: str
) -> None:
    box.details[42] = detail(view, ())
    server.answers[requests.Follow] = [Following(id=0, since=7), replies.End(id=0)]
    result = gpuctl(*argv)
    assert (result.status, result.out) == (1, "")
    assert result.err == f"gpuctl: cannot show the log of job 42: {why}\n"


def test_an_attempt_that_could_not_start_has_an_empty_log(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42, b"")
    assert (gpuctl("logs", "42").status, gpuctl("logs", "42").err) == (0, "")
    box.details[42] = detail(
        done(42, "not-started", why="/x does not exist"), box.details[42].attempts
    )
    result = gpuctl("logs", "42")
    assert result.err == (
        "gpuctl: cannot show the log of job 42: it could not be started: /x does not exist\n"
    )


def test_a_file_that_is_gone_or_closed_to_us(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42, b"x")
    box.path(42).unlink()
    gone = gpuctl("logs", "42")
    assert (gone.status, gone.out) == (1, "")
    assert gone.err == (f"gpuctl: cannot show the log of job 42: there is no file {box.path(42)}\n")
    box.path(42).mkdir()
    result = gpuctl("logs", "42")
    assert result.status == 1
    assert result.err == f"gpuctl: cannot read {box.path(42)}: is a directory\n"


def test_not_found(server: FakeServer, gpuctl: Gpuctl) -> None:
    server.answers = {requests.Show: GpudError("cannot show job 9: no such job", kind="not-found")}
    result = gpuctl("logs", "9")
    assert result.status == 3
    assert result.err == "gpuctl: cannot show the log of job 9: no such job\n"


def test_following_over_attempts_until_the_job_is_done(
    box: Box, server: FakeServer, gpuctl: Gpuctl
) -> None:
    """What is written goes out while the job runs; the next attempt follows; the end ends it."""
    box.put(42, b"one\n", ended=False)

    def live(request: requests.Follow) -> Any:
        assert (request.jobs, request.until_done) == ((42,), True)
        yield Following(id=0, since=7)
        with box.path(42).open("ab") as log:
            log.write(b"two")
        yield EventReply(id=0, event=event(8, 42, "ended", 1))
        box.put(42, b"one\ntwo", b"three\n", ended=False)
        yield EventReply(id=0, event=event(9, 42, "started", 2))
        yield 0.1
        box.put(42, b"one\ntwo", b"three\nfour\n")
        yield EventReply(id=0, event=event(10, 42, "ended", 2))
        yield replies.End(id=0)

    server.answers[requests.Follow] = live
    assert gpuctl("logs", "-f", "42").out == "one\ntwothree\nfour\n"


def test_following_several_mixes_no_lines(box: Box, server: FakeServer, gpuctl: Gpuctl) -> None:
    box.put(42, b"a1\na2", ended=False)
    box.put(43, b"b1\n", ended=False)

    def live(_: requests.Follow) -> Any:
        yield Following(id=0, since=7)
        yield 0.1
        box.put(42, b"a1\na2 goes on\n")
        box.put(43, b"b1\nb2")
        yield replies.End(id=0)

    server.answers[requests.Follow] = live
    lines = gpuctl("logs", "-f", "42", "43").out.splitlines()
    assert sorted(lines) == ["[42] a1", "[42] a2 goes on", "[43] b1", "[43] b2"]


def test_following_a_job_that_has_not_started_and_over_a_restart(
    box: Box, server: FakeServer, gpuctl: Gpuctl
) -> None:
    box.put(42)

    def live(request: requests.Follow) -> Any:
        if request.since is None:
            yield Following(id=0, since=7)
            yield DROP
        assert request.since == 7
        box.put(42, b"hello\n")
        yield Following(id=0, since=7)
        yield EventReply(id=0, event=event(8, 42, "started", 1))
        yield replies.End(id=0)

    server.answers[requests.Follow] = live
    assert gpuctl("logs", "-f", "-n", "0", "42").out == "hello\n"


def test_a_reader_that_has_seen_enough(box: Box, process: Callable[..., Any]) -> None:
    box.put(42, b"line\n" * 1_000_000)
    line = f'"{PROGRAM[0]}" -c "{PROGRAM[2]}" logs 42 | head -1'
    result = process(line, program=["sh", "-c"])
    assert (result.status, result.out, result.err) == (0, "line\n", "")


# -- a log that lost its middle ------------------------------------------------------------------

BLOCK = 65536


def with_a_hole(path: Path, tail: bytes = b"the end\n") -> bool:
    """A block of `a`, a hole of two blocks, then the tail; False where there are no holes."""
    with open(path, "wb") as file:
        file.write(b"a" * BLOCK)
        file.seek(3 * BLOCK)
        file.write(tail)
        file.flush()
        return os.lseek(file.fileno(), BLOCK, os.SEEK_DATA) > BLOCK


@pytest.fixture
def cut(box: Box) -> Path:
    box.put(42, b"")
    if not with_a_hole(box.path(42)):
        pytest.skip("this file system knows of no holes")
    [before] = box.details[42].attempts
    box.details[42] = structs.replace(
        box.details[42], attempts=(structs.replace(before, log_cut=(BLOCK, 3 * BLOCK)),)
    )
    return box.path(42)


def test_what_was_cut_out_is_said(cut: Path, gpuctl: Gpuctl) -> None:
    assert gpuctl("logs", "42").out == "a" * BLOCK + "\n[… 128 KiB cut …]\nthe end\n"
    assert gpuctl("logs", "-n1", "42").out == "the end\n"
    assert gpuctl("logs", "-n2", "42").out == "[… 128 KiB cut …]\nthe end\n"


def test_a_hole_that_gpud_did_not_make_is_what_it_is(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42, b"")
    with_a_hole(box.path(42))
    assert gpuctl("logs", "42").out == "a" * BLOCK + "\0" * 2 * BLOCK + "the end\n"


def test_what_was_to_be_cut_and_was_not_is_there(cut: Path, gpuctl: Gpuctl) -> None:
    cut.write_bytes(b"a" * 4 * BLOCK)
    assert gpuctl("logs", "42").out == "a" * 4 * BLOCK


def test_a_hole_that_grows_while_it_is_read(cut: Path) -> None:
    fd = os.open(cut, os.O_RDWR)
    try:
        os.pwrite(fd, b"b" * 3 * BLOCK, 3 * BLOCK)
        read = holes.pieces(fd, 0, BLOCK, BLOCK)
        assert next(read) == (BLOCK, b"a" * BLOCK)
        assert next(read) == (2 * BLOCK, "[… 128 KiB cut …]\n".encode())
        assert next(read) == (BLOCK, b"b" * BLOCK)
        try:
            punching.punch(str(cut), BLOCK, 5 * BLOCK)
        except GpudError as error:
            pytest.skip(str(error))
        assert next(read) == (BLOCK, "[… 64 KiB cut …]\n".encode())
        assert next(read) == (BLOCK, b"b" * BLOCK)
        assert not [*read]
    finally:
        os.close(fd)


def test_a_log_that_was_removed(box: Box, gpuctl: Gpuctl) -> None:
    box.put(42, b"")
    box.path(42).unlink()
    [before] = box.details[42].attempts
    attempts = (structs.replace(before, log_gone_at_ms=1_795_240_000_000),)
    box.details[42] = structs.replace(box.details[42], attempts=attempts)
    result = gpuctl("logs", "42")
    assert result.status == 1
    assert result.err.startswith("gpuctl: cannot show the log of job 42: it was removed 2026-11-")
