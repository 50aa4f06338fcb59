"""Bytes on the wire come back as they were, or not at all."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpud.errors import GpudError
from gpud.protocol.text import Raw, Text, head_of, to_bytes, to_text


@given(st.binary().filter(lambda value: b"\0" not in value))
def test_any_bytes_survive_the_wire(value: bytes) -> None:
    wire = msgspec.json.encode(to_text(value))
    text: Text = msgspec.json.decode(wire, type=Text)  # type: ignore[arg-type]
    assert to_bytes(text) == value


@given(st.text(max_size=60).map(str.encode) | st.binary(max_size=120), st.integers(4, 20))
@example("𐀀𐀀𐀀𐀀𐀀".encode(), 4)
@example("0𐀀𐀀𐀀𐀀".encode(), 4)
def test_the_head_of_any_bytes(value: bytes, most: int) -> None:
    for given_ in (value, value[: 4 * most + 1]):  # the store reads no more than that
        shown = to_bytes_with_nul(head_of(given_, most))
        assert len(shown.decode(errors="surrogateescape")) <= most
        if shown != value:
            assert shown.endswith("…".encode())
            assert value.startswith(shown.removesuffix("…".encode()))
            assert len(value) > most


def to_bytes_with_nul(value: Text) -> bytes:
    return value.encode() if isinstance(value, str) else base64.b64decode(value.b64)


@given(st.text() | st.builds(Raw, st.text()))
def test_any_text_is_bytes_or_an_error(value: Text) -> None:
    kind = ""
    try:
        found = to_bytes(value)
    except GpudError as error:
        found, kind = b"", error.kind
    assert b"\0" not in found
    assert kind in ("", "protocol", "refused")


@pytest.mark.parametrize("value", [Raw("AAA="), "a\0b"])
def test_a_nul_byte_is_refused(value: Text) -> None:
    with pytest.raises(GpudError, match="contains a NUL byte") as caught:
        to_bytes(value)
    assert caught.value.kind == "refused"
