from __future__ import annotations

from pathlib import Path

import pytest
from nvml_stub import build


@pytest.fixture(scope="session")
def stub_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))
