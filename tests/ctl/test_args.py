"""The command line: options, words, and one sentence about what is wrong with it."""

from __future__ import annotations

from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.ctl import overview
from gpud.ctl.args import Args, Option, Verb, count, duration_s, help_of, parse, whole_number
from gpud.ctl.main import MODULE_OF, find, split
from gpud.errors import GpudError


def nothing(_: Args) -> int:
    return 0


VERB = Verb(
    "try",
    "Try.",
    nothing,
    options=(
        Option("gpus", "", "N", count),
        Option("env", "", "K=V", many=True),
        Option("follow", "", short="f"),
        Option("lines", "", "N", count, short="n"),
    ),
    least=1,
    most=3,
    examples=(),
)
COMMAND = Verb(
    "do", "Do.", nothing, options=VERB.options, most=None, runs_command=True, examples=()
)


def test_options_and_words_mix() -> None:
    args = parse(VERB, ["a", "--gpus", "2", "b", "--env=A=1", "-f", "--env", "B=2", "-n7"])
    assert args.words == ["a", "b"]
    assert (args["gpus"], args["env"], args["follow"], args["lines"]) == (
        2,
        ["A=1", "B=2"],
        True,
        7,
    )
    assert not args.exact


def test_what_was_not_given_is_none() -> None:
    args = parse(VERB, ["a"])
    assert (args["gpus"], args["env"], args["follow"]) == (None, [], False)


def test_the_last_one_counts() -> None:
    assert parse(VERB, ["a", "-n", "1", "--lines", "2"])["lines"] == 2


def test_a_command_ends_the_options() -> None:
    args = parse(COMMAND, ["--gpus", "2", "python", "--gpus", "3", "--", "-f"])
    assert args["gpus"] == 2
    assert args.words == ["python", "--gpus", "3", "--", "-f"]
    assert not args.exact


def test_after_two_dashes_all_is_words() -> None:
    args = parse(COMMAND, ["-f", "--", "--gpus", "-"])
    assert args.words == ["--gpus", "-"]
    assert args.exact


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "cannot try: a word is missing"),
        (["a", "b", "c", "d"], 'cannot try: "d" is one word too many'),
        (["a", "--gpu", "2"], "cannot try: no such option: --gpu (did you mean --gpus?)"),
        (["a", "--frobnicate"], "cannot try: no such option: --frobnicate"),
        (["a", "-x"], "cannot try: no such option: -x"),
        (["a", "--gpus"], "cannot try: --gpus needs a value: --gpus N"),
        (["a", "--gpus", "x"], 'cannot try: --gpus "x": that is not a whole number'),
        (
            ["a", "--gpus", "x" * 300],
            f'cannot try: --gpus "{"x" * 60}…": that is not a whole number',
        ),
        (["a", "--gpus=-1"], 'cannot try: --gpus "-1": that is less than 0'),
        (["a", "--follow=1"], "cannot try: --follow takes no value"),
        (["a", "-fn"], "cannot try: -f takes no value"),
    ],
)
def test_one_sentence_about_what_is_wrong(argv: list[str], message: str) -> None:
    with pytest.raises(GpudError) as caught:
        parse(VERB, argv)
    assert caught.value.message == message
    assert caught.value.kind == "usage"
    assert caught.value.hint == "see: gpuctl try --help"


@given(st.lists(st.text()))
def test_whatever_is_typed_is_parsed_or_a_usage_error(argv: list[str]) -> None:
    kinds = set()
    for verb in (VERB, COMMAND):
        try:
            parse(verb, argv)
        except GpudError as error:
            kinds.add(error.kind)
    assert kinds <= {"usage"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("2h30m", 9000), ("1d", 86400), ("1.5h", 5400),
     ("1h30", 3630), ("0", 0), ("1d2h3m4.5s", 93784.5)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "1x", "30m2h", "1h1h", "-5", "1e3", "inf", "nan", " ", "1..2"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="that is no duration; write 90s, 10m, 2h30m or 1d"):
        duration_s(text)


def test_numbers() -> None:
    assert whole_number("-5") == -5
    for text in ("1.5", "", "٣", "1٣"):
        with pytest.raises(ValueError, match="that is not a whole number"):
            whole_number(text)


@pytest.mark.parametrize(
    ("argv", "verb", "rest"),
    [
        ([], "status", []),
        (["--json"], "status", ["--json"]),
        (["ls", "--all"], "ls", ["--all"]),
        (["--socket", "/s", "ls"], "ls", ["--socket", "/s"]),
        (["--socket=/s", "ls", "42"], "ls", ["--socket=/s", "42"]),
        (["--help"], "help", []),
        (["--version"], "version", []),
        (["help", "ls"], "help", ["ls"]),
    ],
)
def test_the_verb_is_found(argv: list[str], verb: str, rest: list[str]) -> None:
    assert split(argv) == (verb, rest)


def test_every_verb_is_where_main_looks_and_in_the_overview_and_has_examples() -> None:
    there = {
        verb.name: module
        for module in set(MODULE_OF.values())
        for verb in import_module(f"gpud.ctl.{module}").VERBS
    }
    assert there == MODULE_OF
    for name in MODULE_OF:
        assert f"\n  {name} " in overview.TEXT, name
        assert find(name).examples, name


def test_every_help_fits_80_columns() -> None:
    for text in (overview.TEXT, *(help_of(find(name)) for name in MODULE_OF)):
        assert max(map(len, text.splitlines())) <= 80, text
        assert text.endswith("\n")
