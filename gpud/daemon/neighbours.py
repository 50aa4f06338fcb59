"""Other instances of gpud of the same user, and which GPUs they use: a warning, never a refusal.

Called by `gpud serve` and `gpud run`. Each instance writes what its GPUs are called, by index and
by UUID as far as it knows, into `gpus` in its state directory, again whenever its pool becomes
another; it counts while its lock is held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from gpud.core.model import Device
from gpud.locks import is_held

FILE_NAME = "gpus"
UUIDS = ("GPU-", "MIG-")  # how they begin


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
    names = sorted({name for device in devices for names in _names(device) for name in names})
    try:
        (directory / FILE_NAME).write_text("\n".join(names))
    except OSError:
        pass  # a courtesy to others; our own work does not depend on it


def shared_gpus(state_dir: Path, devices: Iterable[Device], *, but: Path) -> list[str]:
    """A sentence for each live instance under `state_dir` that uses one of these GPUs; `but` is
    the directory of the one that asks."""
    ours = [names for device in devices for names in _names(device)]
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
        both = sorted({names[0] for names in ours if not theirs.isdisjoint(names)})
        if both and is_held(other / "lock"):
            sentences.append(f"{_are(both)} also used by the instance in {other}")
    return sentences


def _are(names: list[str]) -> str:
    """ "GPU 0 is", "GPUs 0, 1 are", "GPU-8f6a1b2c is"."""
    kind = "" if names[0].startswith(UUIDS) else "GPU " if len(names) == 1 else "GPUs "
    return f"{kind}{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _names(device: Device) -> Iterator[tuple[str, ...]]:
    """All that each of its GPUs is called, what people call it first."""
    for place, name in enumerate(device.ids):
        yield (name, *device.uuids[place : place + 1])
