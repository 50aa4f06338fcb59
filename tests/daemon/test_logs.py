"""The daemon's own words: two shapes, no secrets, and never a reason to fail."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from gpud.daemon import logs
from gpud.daemon.serve import _log_events
from gpud.protocol.replies import EventView


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = handlers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        self.write("")


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    logs.configure(stream=out).info("source_read", source="nightly", taken=3, path=Path("/q"))
    (line,) = lines(out)
    assert line.pop("at")
    assert line == {
        "event": "source_read", "level": "info", "source": "nightly", "taken": 3, "path": "/q",
    }  # fmt: skip


def test_text_on_a_terminal() -> None:
    out = Terminal()
    logs.configure(stream=out).warning("storage_problem", why="disk full")
    assert "storage_problem" in out.getvalue()
    assert not out.getvalue().startswith("{")


@pytest.mark.parametrize(("form", "brace"), [("json", True), ("text", False)])
def test_a_person_may_choose(form: str, brace: bool) -> None:
    out = Terminal() if form == "json" else io.StringIO()
    logs.configure(form=form, stream=out).info("serving")
    assert out.getvalue().startswith("{") is brace
    assert brace or "\x1b" not in out.getvalue()  # no colours in a file


def test_levels() -> None:
    out = io.StringIO()
    log = logs.configure(level="warning", stream=out)
    log.info("not_seen")
    log.error("seen")
    assert [line["event"] for line in lines(out)] == ["seen"]


@pytest.mark.parametrize(
    ("kind", "detail", "level"),
    [
        ("wrong-gpu", {"pid": 7}, "warning"),
        ("gpu-idle", {"idle_s": 1800}, "warning"),
        ("gpu-quarantined", {"gpu": "GPU-0", "why": "Xid 79"}, "warning"),
        ("gpu-healed", {"gpu": "GPU-0", "why": "by hand"}, "warning"),
        ("stopped-by-gpud", {"reason": "guest"}, "warning"),
        ("ended", {"outcome": "failed"}, "info"),
        ("ended", {"outcome": "succeeded"}, "debug"),
        ("started", {"pid": 7}, "debug"),
    ],
)
def test_what_happens_to_jobs_and_gpus_is_as_loud_as_it_matters(
    kind: str, detail: dict[str, object], level: str
) -> None:
    out = io.StringIO()
    log = logs.configure(level="debug", stream=out)
    events = [EventView(1, 2, 42, 1, kind, detail)]
    _log_events(events, log, verbose=True)
    (line,) = lines(out)
    assert (line["event"], line["level"]) == (kind.replace("-", "_"), level)
    assert line["job"] == 42
    assert line.items() >= detail.items()
    _log_events(events, log, verbose=False)
    assert len(lines(out)) == (1 if level == "debug" else 2)


def test_environments_are_not_logged() -> None:
    out = io.StringIO()
    secret = {"WANDB_API_KEY": "s3cret"}
    log = logs.configure(stream=out)
    log.info("job", env=secret, spec={"Env": "K=s3cret", "more": [{"environ": secret}]}, name="x")
    assert "s3cret" not in out.getvalue()
    (line,) = lines(out)
    assert line["env"] == ["WANDB_API_KEY"]  # names may be seen
    assert line["name"] == "x"


def test_a_bug_comes_with_its_traceback() -> None:
    out = io.StringIO()
    log = logs.configure(stream=out)
    try:
        raise RuntimeError("impossible")
    except RuntimeError:
        log.exception("bug")
    (line,) = lines(out)
    assert "RuntimeError: impossible" in str(line["exception"])


def test_the_journal_gets_priorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as out:
        status = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure(stream=out).error("not_reloaded", why="x")
        out.seek(0)
        line = out.read()
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["event"] == "not_reloaded"


def test_what_libraries_say_comes_in_our_form() -> None:
    out = io.StringIO()
    logs.configure(stream=out)
    logs.configure(stream=out)  # a second time does not say it twice
    logging.getLogger("watchfiles").warning("cannot watch %s", "/q")
    logging.getLogger("watchfiles").info("not interesting")
    (line,) = lines(out)
    assert line["event"] == "library_message"
    assert (line["library"], line["text"]) == ("watchfiles", "cannot watch /q")


def test_a_stream_that_fails_costs_words_only() -> None:
    logs.configure(stream=Full()).info("lost")
    closed = io.StringIO()
    closed.close()
    logs.configure(stream=closed).info("lost_too")


def test_bound_values_are_in_every_line() -> None:
    out = io.StringIO()
    logs.configure(stream=out).bind(source="nightly").info("source_read")
    assert lines(out)[0]["source"] == "nightly"


def test_nobody_pays_for_structlog_before_it_is_used() -> None:
    program = "import sys, gpud.daemon.logs; sys.exit('structlog' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_an_odd_record_of_a_library_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would raise
    out = io.StringIO()
    logs.configure(stream=out)
    logging.getLogger("odd").warning("%d of %s", "x")
    assert lines(out)[0]["text"] == "%d of %s"
