"""The rules of gates and fair shares, from the configuration.

Called by daemon/serve.py and daemon/reload.py. Users are numbers from here on; who is not known on
this machine has no rule, and that is said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

from gpud.config.belonging import uid_of, user_name
from gpud.config.schema import Config, User
from gpud.config.windows import Windows, read_windows
from gpud.core.rules import EVERY_USER, GPU, GROUP, LABEL, SOURCE, USER, Rule, Rules

CLOCK = "clock"  # the provider of windows that daemon/clock.py is
EVERYBODY = "*"


class Ruling(Struct, frozen=True):
    """`windows`: by key, when its gate is open. `notes`: sentences about what has no effect."""

    rules: Rules = Rules()
    windows: dict[str, Windows] = {}
    notes: tuple[str, ...] = ()


def ruling_of(config: Config) -> Ruling:
    """The configuration has been found to be good."""
    gates: dict[str, Rule] = {}
    windows: dict[str, Windows] = {}

    def rule(key: str, limit: int | None, window: str | None, max_fails: int = 0) -> None:
        names = {}
        if window is not None:
            windows[key] = read_windows(config.windows.get(window, window))
            names[CLOCK] = (
                f"the window {window}" if window in config.windows else f"its window ({window})"
            )
        if found := Rule(limit, max_fails, names):
            gates[key] = found

    for name, group in config.groups.items():
        rule(GROUP + name, group.limit, group.window, group.max_fails)
    for label, settings in config.labels.items():
        rule(LABEL + label, settings.limit, settings.window)
    for name, source in config.source.items():
        rule(SOURCE + name, None, source.window)
    for name, window in config.pool.windows.items():
        rule(GPU + name, None, window)
    users, notes = _users(config.users)
    for uid, (_, user) in users.items():
        rule(f"{USER}{uid}", user.limit, user.window)
    every = config.users.get(EVERYBODY, User())
    rule(EVERY_USER, every.limit, every.window)
    weights = {uid: user.weight for uid, (_, user) in users.items() if user.weight is not None}
    rules = Rules(
        gates=gates,
        users={os.geteuid(): user_name(os.geteuid())} | {uid: n for uid, (n, _) in users.items()},
        half_life_ms=round(1000 * config.fair_share.half_life_s),
        weights=weights,
        weight=1.0 if every.weight is None else every.weight,
    )
    return Ruling(rules, windows, tuple(notes))


def _users(named: Mapping[str, User]) -> tuple[dict[int, tuple[str, User]], list[str]]:
    """By number, with all that `[users."*"]` says for them; and who is not known."""
    every = named.get(EVERYBODY, User())
    found: dict[int, tuple[str, User]] = {}
    notes = []
    for name, user in named.items():
        if name == EVERYBODY:
            continue
        uid = uid_of(name)
        if uid is None:
            notes.append(f"users.{name} has no effect: this machine knows no such user")
            continue
        whole = User(
            limit=every.limit if user.limit is None else user.limit,
            weight=every.weight if user.weight is None else user.weight,
            window=every.window if user.window is None else user.window,
        )
        found[uid] = user_name(uid) if name.isdecimal() else name, whole
    return found, notes
