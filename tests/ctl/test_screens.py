"""What people see, against golden files: help, tables and sheets, at 80 and at 200 columns.

After a change that is meant: `GPUCTL_GOLDEN=write python -m pytest tests/ctl/test_screens.py`
writes the files again; read the diff before you keep it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.core.model import DEFAULT_RETRY_ON
from gpud.ctl import events, form, gpus, ls, overview, show, sources, status, why, words
from gpud.ctl.args import help_of
from gpud.ctl.main import MODULE_OF, find
from gpud.ctl.render import Column, Screen, columns, duration, table
from gpud.protocol import selectors

from . import samples

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = (80, 200)


def plain(value: Any) -> Any:
    """As gpuctl gets it from the wire."""
    return json.loads(msgspec.json.encode(value))


SCREENS: dict[str, Callable[[Screen], Sequence[str]]] = {
    "status": lambda on: status.lines(plain(samples.STATUS), on),
    "status-empty": lambda on: status.lines(plain(samples.EMPTY), on),
    "status-drained": lambda on: status.lines({**plain(samples.STATUS), "draining": True}, on),
    "ls": lambda on: ls.jobs_table(plain(samples.JOBS), on),
    "ls-plain": lambda on: ls.jobs_table(plain([samples.job(1), samples.running(2)]), on),
    "show": lambda on: show.sheet(plain(samples.DETAIL), on, {"GPU-00000001-aaaa": "1"}),
    "why-waits": lambda on: why.of_one(plain(samples.WAITS), on, verbose=True),
    "why-when": lambda on: why.of_one(plain(samples.FORETOLD[0]), on, verbose=False),
    "why-many": lambda on: why.of_many(plain(samples.FORETOLD), on),
    "why-done": lambda on: why.of_one(plain(samples.ENDED), on, verbose=True),
    "show-queued": lambda on: show.sheet(
        plain(samples.detail(samples.JOBS[9], argv=("python", "a b"))), on
    ),
    "show-edited": lambda on: show.sheet(plain(samples.EDITED), on),
    "show-paused": lambda on: show.sheet(plain(samples.PAUSED), on),
    "gpus": lambda on: gpus.gpu_lines(plain(samples.GPUS), on),
    "gpus-troubled": lambda on: gpus.gpu_lines(plain(samples.TROUBLED), on),
    "status-troubled": lambda on: status.lines(
        {**plain(samples.EMPTY), "gpus": plain(samples.TROUBLED)}, on
    ),
    "sources": lambda on: sources.source_lines(plain(samples.SOURCES), on),
    "events": lambda on: [events.line(event, on) for event in plain(samples.DETAIL.story)],
}


def compare(name: str, text: str) -> None:
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GPUCTL_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"see the docstring of {__name__}"


@pytest.mark.parametrize("width", [*WIDTHS, 0])
@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str, width: int) -> None:
    on = Screen(width=width, now_ms=samples.NOW_MS)
    lines = SCREENS[name](on)
    compare(f"{name}-{width or 'pipe'}", "\n".join(lines) + "\n")
    assert all(line == line.rstrip() for line in lines)
    if width:
        assert [line for line in lines if columns(line) > width] == []


def test_help() -> None:
    compare("help", overview.TEXT)
    for verb in MODULE_OF:
        compare(f"help-{verb}", help_of(find(verb)))


@pytest.mark.parametrize(("name", "phase"), [("form", ""), ("form-active", "running")])
def test_forms(name: str, phase: str) -> None:
    """What opens in an editor."""
    detail = plain(samples.EDITED)
    if phase:
        detail["job"] |= {"state": "active", "phase": phase, "reason": ""}
    compare(name, form.write(detail))


def test_every_selector_of_an_example_is_one() -> None:
    """`gpuctl wait state:runing` in a help text would end with status 252."""
    examples = [line for verb in MODULE_OF for line in find(verb).examples]
    words_ = [word for line in (*examples, *overview.TEXT.splitlines()) for word in line.split()]
    states = [word for word in words_ if word.startswith("state:")]
    assert "state:bad" in states
    selectors.parse([word.strip(",;") for word in states])


def test_there_is_no_golden_file_of_nothing() -> None:
    there = {path.stem for path in GOLDEN.iterdir()}
    screens = {f"{name}-{width}" for name in SCREENS for width in (*WIDTHS, "pipe")}
    forms = {"form", "form-active"}
    assert there == screens | forms | {"help"} | {f"help-{verb}" for verb in MODULE_OF}


@pytest.mark.parametrize("name", SCREENS)
def test_colour_changes_nothing_but_colour(name: str) -> None:
    import re

    painted = "\n".join(SCREENS[name](Screen(width=80, colour=True, now_ms=samples.NOW_MS)))
    bare = "\n".join(SCREENS[name](Screen(width=80, now_ms=samples.NOW_MS)))
    assert re.sub("\x1b\\[[0-9]*m", "", painted) == bare


ANY_JOB = st.builds(
    lambda name, command, source, why, lease, priority: samples.done(
        7,
        "failed",
        name=name,
        command=command,
        source=source,
        why=why,
        lease=tuple(lease),
        priority=priority,
    ),
    *[st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)] * 4,
    st.lists(st.sampled_from(["0", "1", "2:500", "cpu:62", "GPU-8a1:250", "0,1"]), max_size=8),
    st.integers(-(2**31), 2**31),
)


@given(st.lists(ANY_JOB, min_size=1, max_size=4), st.integers(60, 220), st.booleans())
def test_whatever_a_job_is_called_it_fits_and_moves_no_cursor(
    jobs: list[Any], width: int, symbols: bool
) -> None:
    on = Screen(width=width, symbols=symbols, now_ms=samples.NOW_MS)
    for line in ls.jobs_table(plain(jobs), on):
        assert columns(line) <= width
        assert line.isprintable()
    for line in show.sheet(plain(samples.detail(jobs[0])), on):
        assert line.isprintable()


def test_an_empty_table() -> None:
    on = Screen(width=80)
    assert table(on, (Column("A"), Column("B")), []) == []
    assert table(on, (Column("A"), Column("B")), [["", ""]]) == []


def test_text_for_terminals_without_symbols() -> None:
    on = Screen(width=80, symbols=False)
    assert on.clean("a\nb\x07\u202e") == "a\\nb\\x07\\u202e"
    assert on.cut("abcdef", 4) == "ab.."
    assert Screen(width=80).cut("日本語", 4) == "日…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0.0s"), (0, "0.0s"), (0.44, "0.4s"), (1, "1s"), (59.9, "59s"), (60, "1m"),
     (192, "3m12s"), (3600, "1h"), (3725, "1h02m"), (86399, "23h59m"), (86400, "1d"),
     (273_600, "3d04h"), (10_000_000, "115d17h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two three"]),
        ("one two three four", ["one two three", "  four"]),
        ("one; two; three four", ["one;", "  two;", "  three four"]),
        ("  12:00  one two three", ["  12:00  one", "  two three"]),
        ("/a/path/that/is/long and more", ["/a/path/that/is/long", "  and more"]),
        ("one /a/path/that/is/long", ["one", "  /a/path/that/is/long"]),
        ("日本 日本 日本 日本", ["日本 日本 日本", "  日本"]),
        ("bell\x07 and more text", ["bell\\x07 and", "  more text"]),
    ],
)
def test_a_long_sentence_is_folded(text: str, lines: list[str]) -> None:
    assert Screen(width=14).folded(text) == lines
    assert Screen().folded(text) == [Screen().clean(text)]


@pytest.mark.parametrize(
    ("slots", "free_milli", "told", "room"),
    [
        (1, 1000, "1 of 1", True), (1, 0, "0 of 1", False), (1, 349, "34%", True),
        (2, 500, "1 of 2", True), (2, 700, "70%", True), (2, 200, "20%", True),
        (3, 1000, "3 of 3", True), (3, 667, "2 of 3", True), (3, 1, "0 of 3", False),
        (7, 6, "0 of 7", False), (7, 9, "0 of 7", False), (16, 8, "0 of 16", False),
    ],
)  # fmt: skip
def test_what_is_free_of_a_gpu(slots: int, free_milli: int, told: str, room: bool) -> None:
    gpu = {"slots": slots, "free_milli": free_milli, "jobs": [1]}
    assert (gpus.free(gpu), gpus.has_room(gpu)) == (told, room)


def test_what_the_driver_does_not_say_is_left_out_of_the_table() -> None:
    """Each by itself: memory in use that is more than there is is not told, the whole is."""
    whole = samples.seen(0, 2048)
    for field in ("total_mib", "used_mib", "free_mib", "util", "temperature_c", "power_w"):
        seen = msgspec.structs.replace(whole, **{field: None})
        told = plain(samples.gpu(0, 1000, gpus=(seen,)))
        _, row = gpus.gpu_lines([told], Screen(width=100))
        shown = {"2.0/80G", "50%", "61C", "402W"} & set(row.split())
        assert len(shown) == (4 if field == "free_mib" else 3)
        assert ("?/80G" in row) == (field == "used_mib")


WAITING = samples.running(
    10, state="queued", phase="", attempt=1, lease=("5:57",), ended_at_ms=samples.NOW_MS - 1000,
    reason="waits 9 s more before retry 1 of 3",
)  # fmt: skip


@pytest.mark.parametrize("state", ["queued", "held"])
def test_a_job_that_waits_for_a_retry_is_on_no_gpu(state: str) -> None:
    job = {**plain(WAITING), "state": state}
    assert show.headline(job, Screen()) == f"job 10: {state}"
    head, row = ls.jobs_table([job], Screen(now_ms=samples.NOW_MS))
    assert row.split()[head.split().index("GPU")] == "-"
    assert [words.lease_of({**job, "state": s}) for s in ("active", "done")] == [["5:57"]] * 2


@pytest.mark.parametrize(
    ("retries", "retry_on", "text"),
    [
        (0, (), ""),
        (0, show.USUAL_RETRY_ON, ""),
        (0, ("oom",), "none, so retry-on (oom) has no effect"),
        (3, (), "2 of 3 left, after 10s up to 10m"),
        (3, show.USUAL_RETRY_ON[::-1], "2 of 3 left, after 10s up to 10m"),
        (3, ("killed", "oom"), "2 of 3 left, after 10s up to 10m, on killed, oom"),
    ],
)
def test_which_ends_are_tried_again(retries: int, retry_on: tuple[str, ...], text: str) -> None:
    job = samples.job(1, retries_left=2)
    sheet = show.sheet(plain(samples.detail(job, retries=retries, retry_on=retry_on)), Screen())
    assert [line[12:] for line in sheet if line.startswith("retries ")] == ([text] if text else [])


def test_the_usual_ends_are_those_of_the_core() -> None:
    assert tuple(outcome.value for outcome in DEFAULT_RETRY_ON) == show.USUAL_RETRY_ON


@pytest.mark.parametrize(
    ("jobs", "text"),
    [([], ""), ([3], "3"), ([4, 3], "3, 4"), ([3, 4, 5], "3-5"), ([1, 3, 4, 5, 9, 9], "1, 3-5, 9")],
)
def test_ids(jobs: list[int], text: str) -> None:
    assert words.ids(jobs) == text


@pytest.mark.parametrize(
    ("lease", "short", "long"),
    [
        ((), "", ""),
        (("0",), "0", "GPU 0"),
        (("0", "1"), "0,1", "GPUs 0 and 1"),
        (("0", "1", "4,5"), "0,1,4,5", "GPUs 0, 1 and 4,5"),
        (("0", "1:500", "2"), "0,1,2", "GPU 0, 1/2 of GPU 1 and GPU 2"),
        (("0", "GPU-8f6a1b2c-aaaa"), "0,GPU-8f6a1b2c", "GPU 0 and GPU-8f6a1b2c"),
        (("1:500",), "1", "1/2 of GPU 1"),
        (("1:333",), "1", "1/3 of GPU 1"),
        (("1:700",), "1", "70 % of GPU 1"),
        (("cpu:62",), "cpu", "CPU only"),
        (("MIG-GPU-8a:1:2",), "MIG-GPU-8a:1", "1/500 of MIG-GPU-8a:1"),
        (("GPU-8f6a1b2c-aaaa",), "GPU-8f6a1b2c", "GPU-8f6a1b2c"),
        (("GPU-8f6a1b2c-aaaa,GPU-9f6a1b2c-aaaa",), *["GPU-8f6a1b2c,GPU-9f6a1b2c"] * 2),
        (("0,1:500",), "0,1", "1/2 of GPU 0,1"),
    ],
)
def test_leases(lease: tuple[str, ...], short: str, long: str) -> None:
    assert words.devices(lease) == short
    assert words.devices_in_words(lease) == long
