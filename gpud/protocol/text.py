"""Bytes on the wire: UTF-8 as a JSON string, everything else as `{"b64": "…"}`."""

from __future__ import annotations

import base64
import binascii

from msgspec import Struct

from gpud.errors import GpudError


class Raw(Struct, frozen=True, forbid_unknown_fields=True):
    b64: str


Text = str | Raw


def to_text(value: bytes) -> Text:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Raw(base64.b64encode(value).decode())


def own_bytes(value: Text) -> bytes:
    """The bytes of a text that `to_text` made."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value.b64, validate=True)


def head_of(command: bytes, most: int) -> Text:
    """At most `most` characters, or where it is not UTF-8 bytes; what was cut ends in "…". The
    `command` may itself be cut after 4 * `most` + 1 bytes."""
    if len(command) <= most:
        return to_text(command)
    try:
        text = command.decode()
    except UnicodeDecodeError as error:
        if len(command) < 4 * most or error.start < len(command) - 3:
            end = "…".encode()
            return to_text(command[: most - len(end)] + end)
        # cut within its last character
        return command[: error.start].decode()[: most - 1] + "…"
    return text if len(text) <= most else text[: most - 1] + "…"


def to_bytes(value: Text) -> bytes:
    """The bytes of a text that came from outside. Raises GpudError for bad base64, lone surrogates
    and NUL bytes."""
    try:
        raw = own_bytes(value)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise GpudError(f"cannot read a text of the request: {error}", kind="protocol") from error
    if b"\0" in raw:
        raise GpudError("cannot take a text that contains a NUL byte", kind="refused")
    return raw
