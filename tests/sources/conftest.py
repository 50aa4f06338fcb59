"""A queue file in a directory of its own, with clocks that do not make a test wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpud.config.schema import JobDefaults, QueueFileSource
from gpud.sources.queue_file import QueueFile
from gpud.sources.settling import Timing

QUICK = Timing(settle_s=0.0, away_s=0.0)

Make = Callable[..., QueueFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gpu.queue"


@pytest.fixture
def make(path: Path) -> Make:
    """A `QueueFile` on `path`: polled, fast, for boot "boot-1", unless a test says otherwise."""

    def make(
        *, timing: Timing = QUICK, watch: bool = False, boot: str = "boot-1", **config: object
    ) -> QueueFile:
        extra = {key: config.pop(key) for key in ("limits", "clock", "environ") if key in config}
        settings = {"path": str(path), "poll_s": 0.02, **config}
        return QueueFile(
            "q",
            QueueFileSource(**settings),  # type: ignore[arg-type]
            JobDefaults(),
            boot_id=boot,
            uid=1000,
            base_dir=path.parent,
            watch=watch,
            timing=timing,
            **extra,  # type: ignore[arg-type]
        )

    return make
