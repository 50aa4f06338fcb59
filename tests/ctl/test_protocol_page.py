"""docs/protocol.md against the types: every example is one, and every type has an example."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import get_args

import msgspec

import gpud
from gpud.errors import EXIT_OF_KIND
from gpud.protocol import replies
from gpud.protocol.framing import decode_job, decode_request
from gpud.protocol.requests import AnyRequest, JobFields

PAGE = (Path(gpud.__file__).parents[1] / "docs" / "protocol.md").read_text()
SENT = [line[3:] for line in PAGE.splitlines() if line.startswith("C: ")]
ANSWERED = [line[3:] for line in PAGE.splitlines() if line.startswith("S: ")]


def subclasses(kind: type) -> list[type]:
    return [kind, *(more for one in kind.__subclasses__() for more in subclasses(one))]


REPLIES = [
    kind for kind in subclasses(replies.Reply) if kind not in (replies.Reply, replies.Changed)
]


def test_every_request_of_the_page_is_one_and_none_is_missing() -> None:
    found = set()
    for line in SENT:
        if '"type"' in line:
            found.add(type(decode_request(line.encode())))
        else:
            decode_job(line.encode())
    assert found == set(get_args(AnyRequest))


def test_every_reply_of_the_page_is_one_and_none_is_missing() -> None:
    decoder = msgspec.json.Decoder(functools.reduce(operator.or_, REPLIES))
    greeting, *rest = ANSWERED
    msgspec.json.decode(greeting, type=replies.Greeting)
    found = set()
    for line in rest:
        reply = decoder.decode(line)
        found.add(type(reply))
        assert json.loads(line) == json.loads(msgspec.json.encode(reply)), (
            "a field is missing or unknown"
        )
    assert found == set(REPLIES)


def test_every_field_of_a_job_is_on_the_page() -> None:
    for name in JobFields.__struct_fields__:
        assert f"`{name}`" in PAGE, name


def test_every_kind_of_error_is_on_the_page() -> None:
    for kind in EXIT_OF_KIND.keys() - {"unreachable"}:
        assert f"| `{kind}` |" in PAGE, kind
