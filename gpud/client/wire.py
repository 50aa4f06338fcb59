"""Lines of the control protocol: plain values to JSON and back, bytes to texts and back.

Used by the rest of client/ and by gpuctl. It uses the C half of the standard `json` module
directly where there is one: importing `json` itself costs more than all else a `gpuctl submit`
does. Knows nothing of sockets and nothing of what the messages mean.
"""

from __future__ import annotations

import binascii

from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAX_LINE_BYTES = 1 << 20  # what the daemon reads; the same as gpud.protocol.MAX_LINE_BYTES


class _Scanning:
    """What the C scanner asks of a decoder: the settings of `json.loads`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> float:
        return float(name)


def _json_parts() -> tuple[Callable[[str], str], Callable[[str], Any]]:
    """(quote a string, read a document); `_json` is private to CPython, so do without if need be"""
    try:
        from _json import encode_basestring, make_scanner

        scan = make_scanner(_Scanning)  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):
        from json import JSONEncoder, loads

        return JSONEncoder(ensure_ascii=False).encode, loads
    else:

        def read(document: str) -> Any:
            try:
                value, end = scan(document, 0)
            except StopIteration:
                raise ValueError("not JSON") from None
            if end != len(document):
                raise ValueError("more than one value")
            return value

        return encode_basestring, read


_quote, _read = _json_parts()


def encode(value: object) -> bytes:
    """One line, with its newline. Raises GpudError (usage) for a text that is not Unicode."""
    try:
        return _compact(value).encode() + b"\n"
    except UnicodeEncodeError as error:
        wrong = error.object[:60].encode(errors="surrogateescape")
        raise GpudError(f"cannot send {wrong!r}: it is not UTF-8", kind="usage") from error


def _compact(value: object) -> str:
    if isinstance(value, str):
        if not value.isascii():
            value.encode()  # so that an error is about this one
        return _quote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quote(k)}:{_compact(v)}" for k, v in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([_compact(item) for item in value]) + "]"
    raise TypeError(f"{type(value).__name__} has no place in a message")


def decode(line: bytes) -> dict[str, Any]:
    """Raises ValueError for everything that is not one JSON object."""
    try:
        value = _read(line.decode().strip())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def to_text(value: bytes) -> str | dict[str, str]:
    """Bytes as they travel: UTF-8 as a string, everything else as `{"b64": …}`."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": binascii.b2a_base64(value, newline=False).decode()}


def from_text(text: str | dict[str, str]) -> str:
    """For people: what is not UTF-8 becomes `\\xNN`."""
    if isinstance(text, str):
        return text
    return binascii.a2b_base64(text["b64"]).decode(errors="backslashreplace")
