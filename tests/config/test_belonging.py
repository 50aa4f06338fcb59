"""Groups, users, labels and windows in the configuration, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.config.belonging import MOST_LABELS, labels_of, read_group, read_label
from gpud.config.load import ConfigError, parse
from gpud.config.schema import Config
from gpud.errors import GpudError

SOURCE = '[source.a]\ntype = "queue-file"\npath = "q"\n'
NIGHTS = '[windows]\nnights = "22:00-07:00"\n'


def config(text: str) -> Config:
    return parse(text, name="gpud.toml", directory=Path("/etc/gpud"))


def said(text: str) -> list[str]:
    """The problems of a text."""
    try:
        config(text)
    except ConfigError as error:
        return error.problems
    return []


def test_all_of_it() -> None:
    found = config(
        f"""{NIGHTS}
        [groups.lr]
        limit = 4
        max_fails = 3
        window = "nights"
        [users.alice]
        weight = 2
        [users."*"]
        limit = 8
        [users.1000]
        window = "all day Sat-Sun"
        [labels."sweep=lr"]
        limit = 1
        [fair_share]
        half_life_s = "7d"
        [pool]
        windows = {{ 0 = "nights", GPU-8f6a = "9:00-17:00" }}
        [defaults]
        group = "any"
        labels = {{ by = "hand" }}
        {SOURCE}window = "nights"
        group = "lr"
        labels = {{ sweep = "lr", by = "night" }}
        """
    )
    assert found.groups["lr"].max_fails == 3
    assert (found.users["alice"].weight, found.users["1000"].limit) == (2, None)
    assert found.fair_share.half_life_s == 604_800
    assert found.source["a"].group == "lr"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[groups.lr]\nlimt = 4", "gpud.toml:2: unknown key groups.lr.limt: did you mean limit?"),
        ("[groups.lr]\nlimit = -1", "gpud.toml:2: groups.lr.limit must be at least 0, not -1"),
        ("[groups.lr]\nweight = 2", "unknown key groups.lr.weight: it belongs in [users.NAME]"),
        ('[groups."a b"]\nlimit = 1', "cannot use the name 'a b': a group has letters, digits"),
        ("[users.bob]\nweight = 0", "users.bob.weight must be more than 0, not 0"),
        ('[users.bob]\nweight = "2"', "users.bob.weight must be a number, not text"),
        ('[users."a:b"]\nlimit = 1', "cannot use the name 'a:b': write the name of a user"),
        ("[labels.sweep]\nlimit = 1", "cannot use the name 'sweep': a label is KEY=VALUE"),
        ('[windows]\n"1st" = "all day"', "the name of a window begins with a letter"),
        ('[windows]\nnights = "Mon"', 'windows.nights: "Mon" says no times: write "all day Mon"'),
        (
            f'{NIGHTS}[groups.lr]\nwindow = "nihgts"',
            'gpud.toml:4: groups.lr.window: [windows] has no "nihgts": did you mean nights?',
        ),
        (
            f'{NIGHTS}[pool]\nwindows = {{ 0 = "x" }}',
            'gpud.toml:4: pool.windows.0: [windows] has no "x": there are nights',
        ),
        (
            f'{SOURCE}window = "22:00"',
            'gpud.toml:4: source.a.window: "22:00" has no end: write text like "22:00-07:00"',
        ),
        ("[fair_share]\nhalf_life = 7", "fair_share.half_life: did you mean half_life_s?"),
        ('[defaults]\ngroup = "a b"', "defaults.group cannot be 'a b': a group has letters"),
        ('[defaults]\nlabels = { a = "" }', "defaults.labels.a cannot be '': a label is KEY="),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, sentence: str) -> None:
    found = said(text)
    assert len(found) == 1
    assert sentence in found[0]


def test_labels_of_a_source_and_of_the_defaults_are_counted_together() -> None:
    half = {f"k{i}": "v" for i in range(20)}
    text = "[defaults.labels]\n" + "".join(f'{k} = "v"\n' for k in half)
    text += f"{SOURCE}[source.a.labels]\n" + "".join(f'{k}x = "v"\n' for k in half)
    assert said(text) == [
        f"gpud.toml:25: source.a.labels: a job has at most {MOST_LABELS} labels",
    ]


def test_labels_add_up_and_the_last_of_a_key_counts() -> None:
    assert labels_of({"b": "2", "a": "1"}, ("b=1", "c=3")) == ("a=1", "b=2", "c=3")


def test_one_without_a_value_takes_it_away() -> None:
    assert read_label("b=") == ("b", "")
    assert labels_of({"b": "", "x": ""}, ("b=1", "c=3")) == ("c=3",)


@pytest.mark.parametrize("text", ["sweep=lr", "seed=1", "lr=1e-3", "env/os=linux:6.1+x@%"])
def test_a_label(text: str) -> None:
    assert "=".join(read_label(text)) == text


@pytest.mark.parametrize(
    "text", ["sweep", "=x", "=", "a b=", "a b=c", "a=b c", "a=b,c", "-a=b", "a=b\n"]
)
def test_no_label(text: str) -> None:
    with pytest.raises(GpudError, match="a label is KEY=VALUE"):
        read_label(text)


@pytest.mark.parametrize("text", ["", "a b", "-a", "a:b", "a" * 65, "a\n"])
def test_no_group(text: str) -> None:
    with pytest.raises(GpudError, match="a group has letters, digits"):
        read_group(text)
