"""A job as a TOML for an editor: whatever it says is written so that it is read again."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.ctl import form
from gpud.errors import GpudError
from gpud.protocol.text import Raw, to_text

from . import samples


def detail(**changes: Any) -> dict[str, Any]:
    """Of a job that waits, as gpuctl gets it from the wire."""
    view = {k: changes.pop(k) for k in [*changes] if k in samples.JOBS[0].__struct_fields__}
    shown = samples.detail(samples.job(42, **view), **{"retry_on": ("failed", "lost"), **changes})
    return dict(json.loads(msgspec.json.encode(shown)))


def edited(shown: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """What one replaced line changes."""
    before = form.write(shown)
    assert old in before, before
    return form.changes(before, form.read(before.replace(old, new, 1)))


ODD = [b"it's", b'a "b" \\n', b"'''", b"a\nb", b"a\n'''", b"\n", b"x'\ny'", b"\xff'\"", b"a\r\nb"]
texts = st.sampled_from(ODD) | st.binary(min_size=1, max_size=40).map(
    lambda raw: raw.replace(b"\0", b"")
)


@given(texts, texts, st.lists(texts, max_size=3))
def test_every_command_is_read_as_it_was_written(
    command: bytes, cwd: bytes, argv: list[bytes]
) -> None:
    shown = detail(
        command=to_text(command),
        cwd=to_text(cwd),
        argv=tuple(map(to_text, argv)) or None,
        retry_args=to_text(command),
    )
    read = form.read(form.write(shown))
    assert form.changes(form.write(shown), read) == {}
    if argv:
        assert [word.encode(errors="surrogateescape") for word in read["argv"]] == argv
    else:
        assert read["command"].encode(errors="surrogateescape") == command
    assert read["cwd"].encode(errors="surrogateescape") == cwd


@given(st.recursive(st.text() | st.integers(-9, 9) | st.booleans(), st.lists, max_leaves=4))
def test_values(value: Any) -> None:
    assert tomllib.loads(f"x = {form.toml(value)}") == {"x": value}


def test_commands_are_written_as_people_would() -> None:
    assert form.toml("python a.py > log") == '"python a.py > log"'
    assert form.toml('echo "a"') == "'echo \"a\"'"
    assert form.toml("python a.py \\\n  --lr 1") == "'''\npython a.py \\\n  --lr 1'''"
    assert form.toml('it\'s "so"\x1b') == '"it\'s \\"so\\"\\U0000001b"'


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("priority = 0", "priority = 9", {"priority": "9"}),
        ("priority = 0 ", "", {}),
        ('gpus = "none"', "gpus = 0.5", {"gpus": "0.5"}),
        ('gpus = "none"', 'gpus = "2"', {"gpus": "2"}),
        ('vram = "none"', 'vram = "12G"', {"vram": "12G"}),
        ("exclusive = false", "exclusive = true", {"exclusive": True}),
        ('time-limit = "none"', 'time_limit = "2h"', {"time-limit": "2h"}),
        ('after = "none"', 'after = [12, "14-20"]', {"after": "12,14-20"}),
        ('retry-on = "failed,lost"', 'retry-on = ["oom", 75]', {"retry-on": "oom,75"}),
        ('group = "none"', 'group = "lr"', {"group": "lr"}),
        ("label = []", 'label = ["a=1", "b=2"]', {"label": ["a=1", "b=2"]}),
        ("label = []", 'label = "a=1"', None),
        ("[env]", "[env]\nLR = 0.1\nB = 'x y'", {"env": ["LR=0.1", "B=x y"]}),
        ("command = ", 'name_ = ""\ncommand = ', None),
        ("[env]", "[evn]\nA = '1'", None),
        ("[env]", "[env]\n'A=B' = '1'", None),
        ("[env]", "[env]\nA = [1]", None),
        ("exclusive = false", 'exclusive = "yes"', None),
        ("priority = 0", "priority = true", None),
        ("priority = 0", "priority = 2026-11-22", None),
        ("priority = 0", "priority = 2h", None),
    ],
)
def test_what_somebody_has_made_of_it(old: str, new: str, changes: dict[str, Any] | None) -> None:
    if changes is not None:
        assert edited(detail(), old, new) == changes
        return
    with pytest.raises(GpudError) as caught:
        edited(detail(), old, new)
    assert caught.value.kind == "usage"
    assert "\n" not in caught.value.message


def test_a_label_that_is_taken_out_of_its_list_is_taken_away() -> None:
    old = 'label = ["a=1", "b=2", "c=3"]'
    found = edited(detail(labels={"a": "1", "b": "2", "c": "3"}), old, 'label = ["a=9", "c=3"]')
    assert found == {"label": ["a=9", "c=3", "b="]}


def test_which_line_is_no_toml() -> None:
    with pytest.raises(GpudError, match=r"at line 2, column 6\)"):
        form.read("a = 1\nb = 2h30m\n")
    with pytest.raises(GpudError, match=r"texts stand in quotes: .* line 5,"):
        form.read("a = 1\nb = soon\n", 3)


def test_no_value_of_a_variable_and_nothing_that_breaks_a_comment() -> None:
    shown = detail(env_names=("HOME", Raw("/w=="), *["LONG"] * 40), name="a", reason="x\ny")
    written = form.write(shown)
    assert max(map(len, written.splitlines())) <= 100
    assert form.read(written)["env"] == {}
    assert "# x y\n" in written


def test_an_active_job_has_only_what_concerns_later_tries() -> None:
    shown = detail(state="active", phase="running", name="x")
    read = form.read(form.write(shown))
    assert read.keys() == {"priority", "retries", "backoff", "retry-on", "retry-args"}
    assert "# It runs: only this can be changed now.\n" in form.write(shown)
