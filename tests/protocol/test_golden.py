"""What the protocol looked like in each version, byte for byte.

The files in golden/ are never edited, only added to: they are what clients in the field send and
expect. A change that makes one of them fail breaks those clients; it needs a new protocol version,
and this one has to be spoken on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Union, get_args

import msgspec
import pytest

from gpud.protocol import PROTOCOL_VERSION
from gpud.protocol import replies as replies_module
from gpud.protocol.framing import decode_job, decode_request, encode_line
from gpud.protocol.replies import Changed, Greeting, Reply
from gpud.protocol.requests import AnyRequest

GOLDEN = Path(__file__).parent / "golden" / "v1"
FILES = {path.name.removesuffix(".json"): path.read_bytes() for path in GOLDEN.iterdir()}
REQUESTS = sorted(name for name in FILES if name.startswith("request."))
REPLIES = sorted(name for name in FILES if name.startswith("reply."))
REPLY_TYPES = [
    item
    for item in vars(replies_module).values()
    if isinstance(item, type) and issubclass(item, Reply) and item not in (Reply, Changed)
]
any_reply: Any = msgspec.json.Decoder(Union[tuple(REPLY_TYPES)])  # noqa: UP007


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_read_and_written_as_ever(name: str) -> None:
    request = decode_request(FILES[name])
    assert encode_line(request) == FILES[name]
    assert name.split(".")[1].startswith(str(request.__struct_config__.tag))


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_is_read_and_written_as_ever(name: str) -> None:
    reply = any_reply.decode(FILES[name])
    assert encode_line(reply) == FILES[name]
    assert name.split(".")[1].startswith(reply.__struct_config__.tag)


@pytest.mark.parametrize("name", ["job", "job-full"])
def test_a_job_line_is_read_and_written_as_ever(name: str) -> None:
    assert encode_line(decode_job(FILES[name])) == FILES[name]


def test_the_greeting_is_read_and_written_as_ever() -> None:
    greeting = msgspec.json.decode(FILES["greeting"], type=Greeting)
    assert encode_line(greeting) == FILES["greeting"]
    assert greeting.protocol == PROTOCOL_VERSION


def test_every_request_and_every_reply_has_a_golden_file() -> None:
    requests = {type(decode_request(FILES[name])) for name in REQUESTS}
    assert requests == set(get_args(AnyRequest))
    assert {type(any_reply.decode(FILES[name])) for name in REPLIES} == set(REPLY_TYPES)


def test_no_file_is_left_out() -> None:
    assert set(FILES) == {*REQUESTS, *REPLIES, "job", "job-full", "greeting"}
