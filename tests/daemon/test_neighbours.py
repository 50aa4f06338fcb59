"""Two instances on one GPU: a warning, while the other one lives."""

from __future__ import annotations

from pathlib import Path

from gpud.core.model import Device
from gpud.daemon.neighbours import announce, shared_gpus
from gpud.store.statedir import StateDir


def test_only_a_live_instance_with_the_same_gpu_counts(tmp_path: Path) -> None:
    mine = [Device("1", ("1",)), Device("2", ("2",))]
    other = StateDir.open(tmp_path / "runs" / "a", configured=True)
    announce(other.path, [Device("0,1", ("0", "1"))])
    [sentence] = shared_gpus(tmp_path, mine, but=tmp_path)
    assert sentence == f"GPU 1 is also used by the instance in {other.path}"
    assert shared_gpus(tmp_path, [Device("5", ("5",))], but=tmp_path) == []
    assert shared_gpus(tmp_path, mine, but=other.path) == []  # it does not warn of itself
    other.close()
    assert shared_gpus(tmp_path, mine, but=tmp_path) == []
    assert shared_gpus(tmp_path / "nowhere", mine, but=tmp_path) == []
