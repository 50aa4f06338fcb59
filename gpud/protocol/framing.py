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


class LineSplitter:
    """Cuts a byte stream into lines, none longer than MAX_LINE_BYTES."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines completed by `data`. Raises GpudError when a line is too long."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._limit or any(len(line) > self._limit for line in lines):
            raise GpudError(
                f"cannot read the request: a line is longer than {self._limit} bytes",
                kind="protocol",
            )
        return lines


def decode_request(line: bytes) -> AnyRequest:
    try:
        request: AnyRequest = _request_decoder.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GpudError(f"cannot understand the request: {error}", kind="protocol") from error
    return request


def decode_job(line: bytes) -> JobFields:
    try:
        return _job_decoder.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise GpudError(
            f"cannot understand a job of the submit: {error}", kind="protocol"
        ) from error


def request_id(line: bytes) -> int:
    """The id of a request that could not be understood, as far as it has one; else 0."""
    try:
        found: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return 0
    number = found.get("id") if isinstance(found, dict) else None
    return number if isinstance(number, int) and abs(number) < 2**53 else 0


def encode_line(reply: msgspec.Struct) -> bytes:
    return encoder.encode(reply) + b"\n"
