"""Two instances on one GPU: a warning, while the other one lives."""

from __future__ import annotations

from pathlib import Path

from gpud.core.model import Device
from gpud.daemon.neighbours import Neighbours, announce, shared_gpus
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


def test_a_gpu_is_the_same_by_index_and_by_uuid(tmp_path: Path) -> None:
    """One has `pool.visible = "uuid"`; another's driver has not answered."""
    other = StateDir.open(tmp_path / "runs" / "a", configured=True)
    uuids = ("GPU-a", "GPU-b")
    announce(other.path, [Device("0,1", ("0", "1"), uuids=uuids)])
    for mine, said in [
        (Device("GPU-b", ("GPU-b",), uuids=("GPU-b",)), "GPU-b is"),
        (Device("GPU-a,GPU-b", uuids, uuids=uuids), "GPU-a, GPU-b are"),
        (Device("GPU-b", ("1",), uuids=("GPU-b",)), "GPU 1 is"),
        (Device("1", ("1",)), "GPU 1 is"),
    ]:
        [sentence] = shared_gpus(tmp_path, [mine], but=tmp_path)
        assert sentence == f"{said} also used by the instance in {other.path}"
    assert shared_gpus(tmp_path, [Device("GPU-c", ("GPU-c",))], but=tmp_path) == []
    announce(other.path, [Device("GPU-b", ("GPU-b",), uuids=("GPU-b",))])
    [sentence] = shared_gpus(tmp_path, [Device("0", ("1",), uuids=("GPU-b",))], but=tmp_path)
    assert sentence.startswith("GPU 1 is")
    other.close()


def test_what_we_use_is_told_again_and_what_others_use_is_said_once(tmp_path: Path) -> None:
    other = StateDir.open(tmp_path / "runs" / "a", configured=True)
    announce(other.path, [Device("1", ("1",))])
    said: list[str] = []
    ours = StateDir.open(tmp_path, configured=True)
    neighbours = Neighbours(ours.path, tmp_path, lambda event, note: said.append(note))
    neighbours.meet([])  # the driver has not answered yet
    assert said == []
    for _ in range(2):
        neighbours.meet([Device("GPU-a", ("0",)), Device("GPU-b", ("1",))])
    assert said == [f"GPU 1 is also used by the instance in {other.path}"]
    [theirs] = shared_gpus(tmp_path, [Device("0", ("0",))], but=other.path)
    assert theirs == f"GPU 0 is also used by the instance in {tmp_path}"
    ours.close()
    other.close()
