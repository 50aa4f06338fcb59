"""Bytes to lines and lines to requests: whatever comes, a request or a GpudError, never else."""

from __future__ import annotations

from typing import Any

import msgspec

from gpud.errors import GpudError
from gpud.protocol import MAX_LINE_BYTES
from gpud.protocol.requests import AnyRequest, JobFields

_request_decoder = msgspec.json.Decoder(AnyRequest)
_job_decoder = msgspec.json.Decoder(JobFields)
encoder = msgspec.json.Encoder()

MAX_ID = 2**53  # beyond it a JSON number is not the same everywhere
# ValueError: msgspec lets the UnicodeDecodeError of a bad string through.
_MALFORMED = (msgspec.DecodeError, ValueError, RecursionError)


class LineSplitter:
    """Cuts a byte stream into lines, none longer than `limit` (the newline not counted).

    What comes out does not depend on how the stream was cut into pieces. `broken` is None until a
    line is too long; the lines before it still come out, nothing after it does.
    """

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self.broken: GpudError | None = None
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`."""
        if self.broken is not None:
            return []
        first, newline, after = data.partition(b"\n")
        self._rest += first
        lines: list[bytes] = []
        if newline:
            *more, rest = after.split(b"\n")
            lines = [bytes(self._rest), *more]
            self._rest = bytearray(rest)
        for i, line in enumerate((*lines, self._rest)):
            if len(line) > self._limit:
                self.broken = GpudError(
                    f"cannot read the request: a line is longer than {self._limit} bytes",
                    kind="protocol",
                )
                self._rest = bytearray()
                return lines[:i]
        return lines


def decode_request(line: bytes) -> AnyRequest:
    try:
        request: AnyRequest = _request_decoder.decode(line)
    except _MALFORMED as error:
        raise GpudError(f"cannot understand the request: {error}", kind="protocol") from error
    if abs(request.id) > MAX_ID:
        raise GpudError("cannot understand the request: id is not within 2**53", kind="protocol")
    return request


def decode_job(line: bytes, which: str = "a job of the submit") -> JobFields:
    try:
        return _job_decoder.decode(line)
    except _MALFORMED as error:
        raise GpudError(f"cannot understand {which}: {error}", kind="protocol") from error


def request_id(line: bytes) -> int:
    """The id of a request that could not be understood, as far as it has one; else 0."""
    try:
        found: Any = msgspec.json.decode(line)
    except _MALFORMED:
        return 0
    number = found.get("id") if isinstance(found, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > MAX_ID:
        return 0
    return number


def encode_line(reply: msgspec.Struct) -> bytes:
    return encoder.encode(reply) + b"\n"
