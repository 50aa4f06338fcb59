"""What goes between gpud and its GPU helper: one JSON line each.

The words of devices/child.py (the helper) and devices/driver.py (who asks). An answer is a row of
lines: before the helper touches a GPU it says which, so that whoever waits in vain knows where.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from gpud.core.sight import GpuInfo, GpuSight


class Message(Struct, frozen=True, tag_field="op", tag=str.lower, omit_defaults=True):
    pass


class Find(Message, frozen=True):
    """What is there? Answered by `At`s and a `Found`. GPUs at the indices `skip` are not touched if
    there are still `of` GPUs; with another number an index means another GPU."""

    skip: tuple[int, ...] = ()
    of: int = 0


class Look(Message, frozen=True):
    """How are they? Answered by an `At` and a `Seen` for each GPU, and a `Looked`."""

    attempts: dict[int, tuple[int, int]] = {}  # pid -> (job, attempt): ports.Watched
    runners: tuple[int, ...] = ()
    skip: tuple[int, ...] = ()  # as in Find
    done: tuple[int, ...] = ()  # seen already in this look, by the helper before this one
    health: bool = True  # ask for faults of the hardware too; otherwise what was last heard holds
    blind: bool = False  # the driver's process ids mean nothing here


class Touch(Message, frozen=True):
    """Does the driver answer for this GPU, which was skipped in the look before? That look goes on
    with it. Answered by an `At`, a `Seen` and a `Looked`; the `Looked` alone when there are no
    longer `of` GPUs."""

    index: int
    of: int


class At(Message, frozen=True):
    """From now on the helper is busy with this GPU, one of so many."""

    index: int
    of: int


class Found(Message, frozen=True):
    """`unread`: why a GPU could not be looked at; `unusable`: it could, and offers nothing."""

    driver: str
    count: int
    gpus: tuple[GpuInfo, ...] = ()
    unread: dict[int, str] = {}
    unusable: dict[int, str] = {}
    skipped: tuple[int, ...] = ()


class Seen(Message, frozen=True):
    """A GPU: its own sight, or its MIG instances', or a problem with all of it."""

    index: int
    sights: tuple[GpuSight, ...] = ()
    problem: str = ""
    broken: bool = False


class Looked(Message, frozen=True):
    """The look is over. `found`: what there is, if a look has shown that it has changed."""

    found: Found | None = None


class Broke(Message, frozen=True):
    """At any time: an Xid that makes these GPUs useless."""

    uuids: tuple[str, ...]
    why: str


class Cannot(Message, frozen=True):
    """The driver cannot be asked, or the helper has a bug; it ends."""

    why: str  # a clause
    missing: bool = False  # there is no driver on this machine


Request = Find | Look | Touch
Answer = At | Found | Seen | Looked | Broke | Cannot

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode
