"""Other instances of gpud of the same user, and which GPUs they use: a warning, never a refusal.

Called by `gpud serve` and `gpud run`. Each instance writes its GPU ids into `gpus` in its state
directory, again whenever its pool becomes another; it counts while its lock is held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from gpud.core.model import Device
from gpud.locks import is_held

FILE_NAME = "gpus"


class Neighbours:
    """Of the instance in `directory`: those under `state_dir`."""

    def __init__(self, directory: Path, state_dir: Path, warn: Callable[..., None]) -> None:
        self._directory = directory
        self._state_dir = state_dir
        self._warn = warn
        self._said: set[str] = set()

    def meet(self, devices: Collection[Device]) -> None:
        """These are our GPUs now."""
        for sentence in shared_gpus(self._state_dir, devices, but=self._directory):
            if sentence not in self._said:
                self._said.add(sentence)
                self._warn("shared_gpus", note=sentence)
        announce(self._directory, devices)


def announce(directory: Path, devices: Iterable[Device]) -> None:
    ids = sorted({i for device in devices for i in device.ids})
    try:
        (directory / FILE_NAME).write_text("\n".join(ids))
    except OSError:
        pass  # a courtesy to others; our own work does not depend on it


def shared_gpus(state_dir: Path, devices: Iterable[Device], *, but: Path) -> list[str]:
    """A sentence for each live instance under `state_dir` that uses one of these GPUs; `but` is
    the directory of the one that asks."""
    ours = {i for device in devices for i in device.ids}
    runs = state_dir / "runs"
    others = [state_dir, *(sorted(runs.iterdir()) if runs.is_dir() else ())]
    sentences = []
    for other in others:
        if other == but:
            continue
        try:
            theirs = set((other / FILE_NAME).read_text().split("\n"))
        except OSError:
            continue
        both = sorted(ours & theirs)
        if both and is_held(other / "lock"):
            what = f"GPU {both[0]} is" if len(both) == 1 else f"GPUs {', '.join(both)} are"
            sentences.append(f"{what} also used by the instance in {other}")
    return sentences
