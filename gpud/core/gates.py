"""Gates: each holds back the jobs that belong to one key, by a limit, windows, and their fails.

Owned by core/state.py, which counts who runs; asked by core/ready.py before a job is offered
anything, and by core/watching.py for gates of GPUs. The jobs of an array can have one like a group.

Rule 1: there is a gate where there is a rule: a configured one (`Rules`), or a person's (`Kept`),
    which goes before it as far as it goes.
Rule 2: calendars are not known here. Providers (the clock; others may come) say of each gate
    whether it is open, until when, and why not. Whoever is awaited and silent keeps it closed.
Rule 3: a gate decides who may start. What runs goes on when its window closes or its limit falls.
Rule 4: the job for which GPUs are kept (core/reservation.py) is promised a place in its gates, too:
    those behind it would take it for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpud.core.rules import (
    ARRAY,
    EVERY_USER,
    LABEL,
    NO_RULE,
    NO_RULES,
    NONE,
    NOTHING_KEPT,
    SOURCE,
    USER,
    Kept,
    Rule,
    Rules,
    Window,
)

NOT_LOOKED_AT = "which is being looked at"
MOST_REMEMBERED = 10_000  # what jobs belong to; with labels of their own each is another


class Gate:
    """`running` is how many of its jobs are active, `promised` how many places are kept, `fails`
    how many failed since a release."""

    __slots__ = ("fails", "key", "limit", "max_fails", "names", "promised", "running", "windows")

    def __init__(self, key: str, rule: Rule, kept: Kept) -> None:
        self.key = key
        self.limit = rule.limit
        self.max_fails = rule.max_fails
        if kept.limit is not None:
            self.limit = None if kept.limit == NONE else kept.limit
        if kept.max_fails is not None:
            self.max_fails = max(0, kept.max_fails)
        self.fails = kept.fails
        self.running = self.promised = 0
        self.names = rule.windows  # provider -> what people call its window
        self.windows: dict[str, Window] = {}  # provider -> what it says

    @property
    def is_full(self) -> bool:
        return self.limit is not None and self.running + self.promised >= self.limit

    @property
    def has_tripped(self) -> bool:
        """So many of its jobs have failed that the rest is held."""
        return 0 < self.max_fails <= self.fails

    def closed_by(self, now_ms: int) -> str:
        """The provider whose window is not open now, or ""."""
        for provider in self.names:
            window = self.windows.get(provider)
            if window is None or not window.open or window.until_ms <= now_ms:
                return provider
        return ""

    def admits(self, now_ms: int) -> bool:
        return not (self.is_full or (self.names and self.closed_by(now_ms)))

    def outside(self, now_ms: int) -> str:
        """The window that is not open and when it will be, as a noun; "" when all are open."""
        provider = self.closed_by(now_ms)
        if not provider:
            return ""
        window = self.windows.get(provider)
        why = window.why if window is not None and not window.open else ""
        return f"{self.names[provider]}, {why or NOT_LOOKED_AT}"


class Gates:
    """`kept`: by key, what the store keeps of gates."""

    def __init__(self, rules: Rules = NO_RULES) -> None:
        self.rules = rules
        self.kept: dict[str, Kept] = {}
        self.told: dict[str, Mapping[str, Window]] = {}  # provider -> key -> window
        self._gates: dict[str, Gate] = {}
        self._of: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._promised: tuple[str, ...] = ()

    # -- who is behind which ---------------------------------------------------------------------

    def of(self, belongs: tuple[str, ...]) -> tuple[str, ...]:
        """Those of a job's keys that have a gate."""
        found = self._of.get(belongs)
        if found is None:
            if len(self._of) >= MOST_REMEMBERED:
                self._of.clear()
            found = self._of[belongs] = tuple(key for key in belongs if self.is_one(key))
        return found

    def is_one(self, key: str) -> bool:
        kept = self.kept.get(key, NOTHING_KEPT)
        said = kept.limit is not None or kept.max_fails is not None
        return said or bool(self._rule(key))

    def __getitem__(self, key: str) -> Gate:
        gate = self._gates.get(key)
        if gate is None:
            gate = Gate(key, self._rule(key), self.kept.get(key, NOTHING_KEPT))
            self._gates[key] = gate
            self._show_windows(gate)
        return gate

    def closed(self, keys: Iterable[str], now_ms: int) -> str:
        """The first of these gates that lets nobody start now, or ""."""
        for key in keys:
            if not self[key].admits(now_ms):
                return key
        return ""

    def promise(self, keys: tuple[str, ...]) -> None:
        """One place more in each of these is kept."""
        self._promised += keys
        for key in keys:
            self[key].promised += 1

    def take_back(self) -> tuple[str, ...]:
        """No place is kept any more; gives back where there were some."""
        before, self._promised = self._promised, ()
        for key in before:
            self[key].promised = 0
        return before

    def _rule(self, key: str) -> Rule:
        rule = self.rules.gates.get(key)
        if rule is None and key.startswith(USER):
            rule = self.rules.gates.get(EVERY_USER)
        return rule or NO_RULE

    # -- what changes ----------------------------------------------------------------------------

    def count(self, belongs: tuple[str, ...], by: int) -> tuple[str, ...]:
        """So many more (or less) of its kind are active; gives back the gates of that kind."""
        keys = self.of(belongs)
        for key in keys:
            self[key].running += by
        return keys

    def change(self, rules: Rules, active: Iterable[tuple[str, ...]]) -> None:
        """Other rules; `active`: what each active job belongs to."""
        self.rules = rules
        self.renew(active)

    def renew(self, active: Iterable[tuple[str, ...]]) -> None:
        """Which gates there are is found out afresh."""
        self._gates.clear()
        self._of.clear()
        self._promised = ()
        for belongs in active:
            self.count(belongs, 1)

    def keep(self, key: str, kept: Kept) -> None:
        """What is said of it, or its fails, change. Whether it is one changes only where nobody
        belongs to it yet, or `renew`."""
        self.kept[key] = kept
        if not kept:
            del self.kept[key]
        if (gate := self._gates.get(key)) is not None:
            again = self._gates[key] = Gate(key, self._rule(key), kept)
            again.running, again.promised = gate.running, gate.promised
            again.windows = gate.windows

    def forget(self, key: str) -> None:
        """Nobody belongs to it any more."""
        self.kept.pop(key, None)
        self._gates.pop(key, None)

    def tell(self, provider: str, windows: Mapping[str, Window]) -> None:
        """All that this provider has to say: of gates that are not in it, nothing."""
        self.told[provider] = windows
        for gate in self._gates.values():
            self._show_windows(gate)

    def _show_windows(self, gate: Gate) -> None:
        for provider in gate.names:
            told = self.told.get(provider, {})
            key = gate.key
            if key not in told and key.startswith(USER):
                key = EVERY_USER
            window = told.get(key)
            if window is None:
                gate.windows.pop(provider, None)
            else:
                gate.windows[provider] = window

    # -- in words --------------------------------------------------------------------------------

    def label(self, key: str) -> str:
        """ "group lr", "user alice"."""
        kind, _, name = key.partition(":")
        return f"{kind} {self.name(key)}" if name else key

    def name(self, key: str) -> str:
        name = key.partition(":")[2]
        if key.startswith(USER) and name.isdecimal():
            return self.rules.users.get(int(name), name)
        return name

    def selector(self, key: str) -> str:
        """What means its jobs on a command line."""
        kind, _, name = key.partition(":")
        return name if key.startswith(ARRAY) else f"{kind}:{self.name(key)}"

    def why(self, keys: Iterable[str], now_ms: int) -> str:
        """The first of these gates that is closed, as a sentence; "" when none is."""
        key = self.closed(keys, now_ms)
        if not key:
            return ""
        gate, label = self[key], self.label(key)
        if outside := gate.outside(now_ms):
            return f"waits for {outside}"
        if not gate.limit:
            return f"waits: {label} may have no job running (its limit is 0)"
        if key.startswith(USER) and not gate.promised:
            return f"waits: {label} has {gate.running} of {gate.limit} running"
        place = "under" if key.startswith((LABEL, SOURCE)) else "in"
        kept = ", and one is kept" if gate.promised else ""
        return f"waits for a place {place} {label}: {gate.running} of {gate.limit} run{kept}"
