"""Bytes on the wire come back as they were, or not at all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.errors import GpudError
from gpud.protocol.text import Raw, Text, to_bytes, to_text


@given(st.binary().filter(lambda value: b"\0" not in value))
def test_any_bytes_survive_the_wire(value: bytes) -> None:
    wire = msgspec.json.encode(to_text(value))
    text: Text = msgspec.json.decode(wire, type=Text)  # type: ignore[arg-type]
    assert to_bytes(text) == value


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
