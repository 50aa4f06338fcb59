from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the server of a test listens."""
    return tmp_path / "gpud.sock"
