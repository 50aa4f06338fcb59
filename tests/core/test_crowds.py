"""Three hundred busy days on a machine that many share: see crowds.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from gpud.core import gating
from gpud.core.heads import Heads
from gpud.core.ready import Ready

from .crowds import live

DAYS = 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_crowds_keep_the_promises_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the days are about does happen in them."""
    found: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        right: Callable[..., object] = getattr(owner, name)

        def counting(*args: object, **more: object) -> object:
            found[name] += 1
            return right(*args, **more)

        monkeypatch.setattr(owner, name, counting)

    for owner, name in [
        (Ready, "_pile_up"),
        (Ready, "_put_up_pile"),
        (Heads, "has_had"),
        (gating, "_hold_all"),
        (gating, "_hold"),
        (gating, "on_windows_turned"),
    ]:
        count(owner, name)
    for seed in range(DAYS):
        live(seed)
    assert len(found) == 6
    assert min(found.values()) > DAYS // 3, found
