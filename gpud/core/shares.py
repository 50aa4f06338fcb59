"""Fair share: what each user has had of the GPUs, and who is next to have some.

Owned by core/state.py, which tells of every lease of GPUs taken and given back. Usage is
GPU-seconds: thousandths of GPUs over time, a group of n GPUs n times. It halves every half-life, so
that what was used long ago counts for little. The lane `cpu` is not counted: nobody waits there for
GPUs, and it goes by submission.

Rule 1: an account is its sum at a time, and what its user holds since: O(1) whatever is asked.
Rule 2: the share that orders users is (usage + ADVANCE_S seconds more of what they hold) / weight.
    So of users who are equal, the one who has just got something comes after the others.
Rule 3: without a half-life there is no fair share, and nothing is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp2, log

from gpud.core.model import CPU_LANE, FULL_MILLI, LeasePart
from gpud.core.rules import NO_RULES, Rules

ADVANCE_S = 60.0
TINY_S = 1.0  # GPU-seconds; less than that is forgotten, a half-life after the last change

Sum = tuple[float, int]  # GPU-seconds, as of then (ms)


class Account:
    __slots__ = ("at_ms", "milli", "used_s")

    def __init__(self, used_s: float = 0.0, at_ms: int = 0) -> None:
        self.used_s = used_s
        self.at_ms = at_ms
        self.milli = 0  # held now, thousandths of GPUs


class Shares:
    def __init__(self, rules: Rules = NO_RULES) -> None:
        self._rules = rules
        self.accounts: dict[int, Account] = {}

    def __bool__(self) -> bool:
        return self._rules.half_life_ms > 0

    # -- what is counted ---------------------------------------------------------------------------

    def load(self, sums: Mapping[int, Sum]) -> None:
        self.accounts = {uid: Account(*found) for uid, found in sums.items()}

    def begin(self, uid: int, milli: int, at_ms: int) -> None:
        account = self.accounts.setdefault(uid, Account(0.0, at_ms))
        account.used_s, account.at_ms = self._used_s(account, at_ms), at_ms
        account.milli += milli

    def resume(self, uid: int, milli: int, since_ms: int) -> None:
        """A lease that is there already when the state is loaded."""
        account = self.accounts.get(uid)
        if account is None or since_ms > account.at_ms:
            self.begin(uid, milli, since_ms)  # it began while nothing was counted
        else:
            account.milli += milli

    def end(self, uid: int, milli: int, since_ms: int, at_ms: int) -> None:
        """A lease that was taken at `since_ms` was given back at `at_ms`, which may be past."""
        account = self.accounts[uid]
        if at_ms >= account.at_ms:
            account.used_s, account.at_ms = self._used_s(account, at_ms), at_ms
        else:
            too_long_ms = account.at_ms - max(at_ms, since_ms)
            account.used_s = max(0.0, account.used_s - self._held_s(milli, too_long_ms))
        account.milli -= milli

    def change(self, rules: Rules, live: Iterable[tuple[int, int]], now_ms: int) -> None:
        """Other rules; `live`: (uid, thousandths) of each lease there is."""
        if self:
            for account in self.accounts.values():
                account.used_s, account.at_ms = self._used_s(account, now_ms), now_ms
        self._rules = rules
        for account in self.accounts.values():
            account.milli = 0
        if self:
            for uid, milli in live:
                self.begin(uid, milli, now_ms)

    def drop_tiny(self, now_ms: int) -> list[int]:
        """Users of whom nothing is worth remembering any more."""
        found = [
            uid
            for uid, account in self.accounts.items()
            if not account.milli
            and now_ms - account.at_ms > self._rules.half_life_ms
            and self._used_s(account, now_ms) < TINY_S
        ]
        for uid in found:
            del self.accounts[uid]
        return found

    # -- what is asked -----------------------------------------------------------------------------

    def used_s(self, uid: int, now_ms: int) -> float:
        account = self.accounts.get(uid)
        return self._used_s(account, now_ms) if account is not None else 0.0

    def share(self, uid: int, now_ms: int) -> float:
        """Who has less goes first. Rule 2."""
        account = self.accounts.get(uid)
        if account is None:
            return 0.0
        ahead_s = ADVANCE_S * account.milli / FULL_MILLI
        return (self._used_s(account, now_ms) + ahead_s) / self.weight(uid)

    def weight(self, uid: int) -> float:
        return self._rules.weights.get(uid, self._rules.weight)

    def _used_s(self, account: Account, now_ms: int) -> float:
        past_ms = max(0, now_ms - account.at_ms)
        if not past_ms or not self:
            return account.used_s
        left = exp2(-past_ms / self._rules.half_life_ms)
        return account.used_s * left + self._held_s(account.milli, past_ms)

    def _held_s(self, milli: int, ms: int) -> float:
        """What holding that much for so long comes to at the end of it."""
        if ms <= 0 or not milli:
            return 0.0
        half_life_ms = self._rules.half_life_ms
        mean_life_s = half_life_ms / log(2) / 1000
        return milli / FULL_MILLI * mean_life_s * (1 - exp2(-ms / half_life_ms))


def gpu_milli(lease: Iterable[LeasePart]) -> int:
    """Thousandths of GPUs in a lease; of a group all its GPUs are counted."""
    return sum(
        part.milli * (part.device.count(",") + 1) for part in lease if part.device != CPU_LANE
    )
