"""gpuctl's own JSON against the standard one, and texts against the daemon's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpud.client import wire
from gpud.errors import GpudError
from gpud.protocol import MAX_LINE_BYTES, text

from .tools import environment

characters = st.characters(blacklist_categories=["Cs"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(characters), inner),
    max_leaves=5,
)  # fmt: skip
objects = st.dictionaries(st.text(characters), values, max_size=3)


@settings(max_examples=50)
@given(objects)
def test_what_is_encoded_is_one_line_of_json(value: dict[str, object]) -> None:
    line = wire.encode(value)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert json.loads(line) == value
    assert wire.decode(line) == value


@settings(max_examples=50)
@given(objects, st.booleans())
def test_every_json_object_is_understood(value: dict[str, object], ascii_only: bool) -> None:
    assert wire.decode(json.dumps(value, ensure_ascii=ascii_only, indent=1).encode()) == value


@given(st.binary())
def test_garbage_is_a_value_error_and_nothing_else(line: bytes) -> None:
    try:
        assert isinstance(wire.decode(line), dict)
    except ValueError:
        pass


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"1", b'{"a":1} x', b'{"a":', b"\xff", b"[" * 100_000]
)
def test_what_is_not_one_object_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words when the C half is missing
        wire.decode(line)


@given(st.binary())
def test_texts_are_what_the_daemon_takes_them_for(value: bytes) -> None:
    mine = wire.to_text(value)
    theirs = text.to_text(value)
    assert mine == (theirs if isinstance(theirs, str) else {"b64": theirs.b64})
    assert wire.from_text(mine) == value.decode(errors="backslashreplace")


def test_what_is_not_unicode_is_one_sentence() -> None:
    with pytest.raises(GpudError, match=r"^cannot send b'train-\\xff': it is not UTF-8$"):
        wire.encode({"name": "train-\udcff"})


def test_the_longest_line_is_the_daemons() -> None:
    assert wire.MAX_LINE_BYTES == MAX_LINE_BYTES


def test_it_works_without_the_c_half_of_json() -> None:
    code = (
        "import sys; sys.modules['_json'] = None\n"
        "from gpud.client import wire\n"
        'line = wire.encode({"a": ["é\\n", None, True, 1.5]})\n'
        'assert line == b\'{"a":["\\xc3\\xa9\\\\n",null,true,1.5]}\\n\', line\n'
        'assert wire.decode(b\'{"a":{"b":[1]}}\') == {"a": {"b": [1]}}\n'
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
