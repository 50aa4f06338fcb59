"""Whatever comes, a request or a GpudError, never else; and however it is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.errors import EXIT_OF_KIND, GpudError
from gpud.protocol import MAX_LINE_BYTES
from gpud.protocol.framing import LineSplitter, decode_job, decode_request, request_id
from gpud.protocol.requests import Cancel, Ping

GOLDEN = [path.read_bytes() for path in (Path(__file__).parent / "golden").rglob("request.*")]

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message of the protocol in which some bytes are others, are missing or are new."""
    line = bytearray(draw(st.sampled_from(GOLDEN)).rstrip(b"\n"))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(line)))
        line[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(line)


def refusal(decode: Callable[[bytes], object], line: bytes) -> GpudError | None:
    try:
        decode(line)
    except GpudError as error:
        return error
    return None


def check(line: bytes) -> None:
    for error in filter(None, (refusal(decode_request, line), refusal(decode_job, line))):
        assert error.kind in EXIT_OF_KIND
        assert error.message.startswith("cannot ")
        error.message.encode()  # it is going to be sent
    assert abs(request_id(line)) <= 2**53


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error(line: bytes) -> None:
    check(line)


@given(json_like)
def test_any_json_is_a_request_or_an_error(document: object) -> None:
    check(json.dumps(document).encode())


@given(mutated())
def test_a_damaged_request_is_a_request_or_an_error(line: bytes) -> None:
    check(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[" * 1_000_000,
        b'{"id":' * 100_000,
        b'{"type":"ping","id":' + b"9" * 5000 + b"}",
        b'{"type":"ping","id":1e400}',
        b'{"type":"cancel","id":1,"jobs":["\xff"]}',
        b'{"type":"cancel","id":1,"jobs":["\\ud800"]}',
        b'{"type":"cancel","id":1,"jobs":[1],"grace_s":1e999}',
        b'{"type":"ping","id":1,"more":true}',
        b'{"type":"dance","id":1}',
        b'{"type":"ping"}',
        b'{"type":"ping","id":9007199254740993}',
        b"null",
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_what_is_no_request_is_refused_in_words(line: bytes) -> None:
    with pytest.raises(GpudError, match="cannot understand the request: ") as caught:
        decode_request(line)
    assert caught.value.kind == "protocol"
    check(line)


def test_the_id_is_found_in_what_could_not_be_understood() -> None:
    assert request_id(b'{"id":7,"type":"dance"}') == 7
    assert request_id(b'{"id":true}') == 0
    assert request_id(b'{"id":"7"}') == 0
    assert request_id(b"[7]") == 0


def test_a_request() -> None:
    assert decode_request(b'{"type":"ping","id":1}\r') == Ping(id=1)
    assert decode_request(b' {"id":2,"jobs":[1,"2-3"],"type":"cancel"} ') == Cancel(
        id=2, jobs=(1, "2-3")
    )


@given(st.lists(st.binary(max_size=12)), st.lists(st.integers(0, 60), max_size=8))
def test_lines_do_not_depend_on_how_the_stream_was_cut(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"\n".join(parts)
    whole = LineSplitter(limit=10)
    lines = whole.feed(stream)
    pieces = LineSplitter(limit=10)
    found: list[bytes] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in pairwise(edges):
        found += pieces.feed(stream[start:end])
    assert found == lines
    assert (pieces.broken is None) == (whole.broken is None)
    expected = stream.split(b"\n")
    long = [i for i, line in enumerate(expected) if len(line) > 10]
    assert lines == (expected[: long[0]] if long else expected[:-1])
    assert (whole.broken is not None) == bool(long)


def test_a_line_of_the_limit_is_taken_and_a_longer_one_is_not() -> None:
    splitter = LineSplitter()
    line = b"x" * MAX_LINE_BYTES
    assert splitter.feed(line + b"\n") == [line]
    assert splitter.feed(b"short\n" + line) == [b"short"]
    assert splitter.broken is None
    assert splitter.feed(b"x") == []
    assert splitter.broken is not None
    assert splitter.broken.message == "cannot read the request: a line is longer than 1048576 bytes"
    assert splitter.feed(b"\nping\n") == []
