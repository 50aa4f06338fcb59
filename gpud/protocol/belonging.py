"""Groups and users as clients see them. Fields that say nothing are left out."""

from __future__ import annotations

from msgspec import Struct


class GroupView(Struct, frozen=True, omit_defaults=True):
    """`fails` counts since a job of it was released; once there are `max_fails` (0: never), what
    waits in it is held. `window`: what people call it; `closed`: the one that is closed now, and
    when it opens."""

    name: str
    limit: int | None  # of running jobs; null: none
    running: int
    waiting: int
    held: int
    done: int
    failed: int  # of these: failed, killed, timed-out, not-started, lost
    max_fails: int = 0
    fails: int = 0
    window: str = ""
    closed: str = ""


class UserView(Struct, frozen=True, omit_defaults=True):
    """`used_s`: GPU-seconds, of which half is forgotten every half-life; null: no fair share."""

    user: str
    uid: int
    limit: int | None
    running: int
    waiting: int
    held: int
    weight: float = 1.0
    used_s: float | None = None
    window: str = ""
    closed: str = ""
