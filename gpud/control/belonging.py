"""Groups and users as people see them: their rules, who runs and waits, what was used.

Called by control/verbs.py. How many jobs a group has is the store's to say, the rest is read from
the state in memory.
"""

from __future__ import annotations

import os
from collections import Counter

from msgspec import UNSET, UnsetType

from gpud.config.belonging import read_group, user_name
from gpud.config.limits import MOST_LIMIT
from gpud.core.events import GateRequested
from gpud.core.model import JobState
from gpud.core.rules import DEFAULT, GROUP, NONE, USER
from gpud.core.spans import count
from gpud.core.state import State
from gpud.errors import GpudError
from gpud.ports import Controlled
from gpud.protocol.belonging import GroupView, UserView
from gpud.protocol.replies import GroupRuled, GroupsReply, UsersReply
from gpud.protocol.requests import Group, Groups, LimitWord, Users
from gpud.protocol.selectors import BAD

WORDS = {"none": NONE, "default": DEFAULT}


def groups(daemon: Controlled, request: Groups) -> GroupsReply:
    counts, now_ms = daemon.store.group_counts(), daemon.now_ms()
    gates = daemon.state.gates
    ruled = {key for key in (*gates.rules.gates, *gates.kept) if key.startswith(GROUP)}
    names = sorted({*counts, *(key.removeprefix(GROUP) for key in ruled)})
    views = (_group(daemon.state, name, counts.get(name, {}), now_ms) for name in names)
    return GroupsReply(id=request.id, groups=tuple(views))


async def rule_group(daemon: Controlled, request: Group) -> GroupRuled:
    """A person's word about a group, if there is one; and how it stands then."""
    try:
        name = read_group(request.name)
        limit = _word(request.limit, "limit")
        max_fails = _word(request.max_fails, "max_fails")
    except GpudError as error:
        raise GpudError(f"cannot change the group: {error.message}", kind="usage") from error
    if limit is not None or max_fails is not None:
        await daemon.ask(lambda number: GateRequested(number, GROUP + name, limit, max_fails))
    counts = daemon.store.group_counts().get(name, {})
    view = _group(daemon.state, name, counts, daemon.now_ms())
    return GroupRuled(id=request.id, group=view)


def _word(word: LimitWord | UnsetType, what: str) -> int | None:
    if word is UNSET:
        return None
    if isinstance(word, str):
        return WORDS[word]
    if not 0 <= word <= MOST_LIMIT:
        raise GpudError(f"{what} must be from 0 to {MOST_LIMIT}")
    return word


def _group(state: State, name: str, counts: dict[str, int], now_ms: int) -> GroupView:
    gate = state.gates[GROUP + name]
    done = {word: n for word, n in counts.items() if word not in tuple(JobState)}
    return GroupView(
        name=name,
        limit=gate.limit,
        running=counts.get(JobState.ACTIVE, 0),
        waiting=counts.get(JobState.QUEUED, 0),
        held=counts.get(JobState.HELD, 0),
        done=sum(done.values()),
        failed=sum(done.get(word, 0) for word in BAD),
        max_fails=gate.max_fails,
        fails=gate.fails,
        window=" and ".join(gate.names.values()),
        closed=gate.outside(now_ms),
    )


def users(daemon: Controlled, request: Users) -> UsersReply:
    state, now_ms = daemon.state, daemon.now_ms()
    counts: Counter[tuple[int, JobState]] = Counter()
    for job in state.jobs.values():
        counts[job.uid, job.state] += count(job.rest) or 1
    keys = (*state.gates.rules.gates, *state.gates.kept)
    ruled = (key.removeprefix(USER) for key in keys if key.startswith(USER))
    uids = {os.geteuid(), *(uid for uid, _ in counts), *state.shares.accounts}
    uids |= {int(name) for name in ruled if name.isdecimal()}
    return UsersReply(
        id=request.id,
        users=tuple(_user(state, uid, counts, now_ms) for uid in sorted(uids)),
        half_life_s=state.gates.rules.half_life_ms / 1000,
    )


def _user(state: State, uid: int, counts: Counter[tuple[int, JobState]], now_ms: int) -> UserView:
    gate = state.gates[f"{USER}{uid}"]
    return UserView(
        user=state.gates.rules.users.get(uid) or user_name(uid),
        uid=uid,
        limit=gate.limit,
        running=counts[uid, JobState.ACTIVE],
        waiting=counts[uid, JobState.QUEUED],
        held=counts[uid, JobState.HELD],
        weight=state.shares.weight(uid),
        used_s=state.shares.used_s(uid, now_ms) if state.shares else None,
        window=" and ".join(gate.names.values()),
        closed=gate.outside(now_ms),
    )
