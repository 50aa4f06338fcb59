"""Values on the wire and in the journal: one JSON object a line, text that may be bytes.

Used by all that read or write a message. Must not know what the messages mean.
"""

import json
from binascii import a2b_base64
from math import inf

TYPE_CHECKING = False  # typing itself would cost half a megabyte for as long as jobs run
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
else:
    Message = dict

encode = json.JSONEncoder(separators=(",", ":")).encode
decode_text = json.JSONDecoder().decode
scan = json.scanner.make_scanner(json.JSONDecoder())  # type: ignore[attr-defined]


def decode(line: bytes | bytearray) -> "Any":
    """Raises ValueError for a line that is no JSON in UTF-8."""
    text = line.decode()
    try:
        value, end = scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return decode_text(text)


def line_of(message: Message) -> bytes:
    return encode(message).encode() + b"\n"


def whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def seconds(value: float | None) -> float:
    """A length of time; null is for ever."""
    if value is None:
        return inf
    if not value >= 0:
        raise ValueError(f"{value!r} is no length of time")
    return float(value)


def shown_seconds(value: float) -> str:
    return "null" if value == inf else repr(value)


def raw(text: "str | dict[str, str]") -> bytes:
    """The bytes of a string on the wire."""
    if isinstance(text, str):
        return text.encode()
    return a2b_base64(text["b64"], strict_mode=True)


def raws(texts: "list[str | dict[str, str]]") -> list[bytes]:
    return [text.encode() if type(text) is str else raw(text) for text in texts]


def shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")
