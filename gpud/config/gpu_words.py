"""What `--gpus` and `pool.gpus` mean: words to devices.

Owns the grammar. A word is a slot: a GPU id, or ids joined by commas, which one job gets together.
The same word twice: two jobs share it. An id is whatever CUDA_VISIBLE_DEVICES takes: an index, a
GPU or MIG UUID; ids are not held against the hardware here. `none` alone: no GPU at all.

    --gpus 0 1 2       three GPUs, one job each
    --gpus 0,1,2       the same: one word alone is split at its commas ("$CUDA_VISIBLE_DEVICES")
    --gpus 0 0 1       two jobs share GPU 0
    --gpus 0,1 2       a pair for one job, and a single GPU

In the configuration every item of the list is a slot and none is split: `gpus = ["0,1"]` is a pair.

A GPU in two different words (`0,1 1`) is refused: capacity is counted per device, and the two
would be leased without knowing of each other (docs/architecture.md, promise 4). An index and a
UUID of the same GPU cannot be told apart here. Called by config/meaning.py, the command lines of
serve and run, and the tools. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpud.config.limits import MOST_SLOTS
from gpud.core.model import CPU_LANE, Device
from gpud.errors import GpudError

NONE = "none"
VARIABLE = "CUDA_VISIBLE_DEVICES"
HIDES_ALL = ("", "-1", "NoDevFiles")
HINT = "GPUs: 0 1 2, or 0,1 2 (a pair for one job, and a single one), or 0 0 (two jobs share it)"
_INDEX = re.compile(r"[0-9]{1,6}")
_UUID = re.compile(r"(?:GPU|MIG)-[A-Za-z0-9/-]{1,120}")  # as nvidia-smi -L prints them


def from_command_line(words: Sequence[str]) -> tuple[Device, ...]:
    """The words after `--gpus`. Raises GpudError (usage) with one sentence."""
    shown = " ".join(words) if all(words) else " ".join(f'"{word}"' for word in words)
    if len(words) == 1 and words[0].strip():
        words = words[0].split(",")
    return _devices(f"--gpus {shown}", words)


def from_variable(value: str) -> tuple[Device, ...]:
    """A CUDA_VISIBLE_DEVICES that gpud was given. Raises GpudError (usage) with one sentence."""
    if value.strip() in HIDES_ALL:
        return ()
    return _devices(f"{VARIABLE}={value}", value.split(","))


def from_config(words: Sequence[str]) -> tuple[Device, ...]:
    """`pool.gpus`, which must not be empty. Raises GpudError (usage) with one sentence."""
    return _devices("pool.gpus = [" + ", ".join(f'"{word}"' for word in words) + "]", words)


def cpu_lane(cpu_slots: int) -> tuple[Device, ...]:
    """The lane for jobs that ask for no GPU; without slots there is none. Giants are cut."""
    return (Device(CPU_LANE, (), min(cpu_slots, MOST_SLOTS)),) if cpu_slots > 0 else ()


def _devices(shown: str, words: Sequence[str]) -> tuple[Device, ...]:
    if [word.strip().lower() for word in words] == [NONE]:
        return ()
    if not any(word.strip() for word in words):
        raise _refused(shown, "it names no GPU; if that is meant, write none")
    slots: dict[tuple[str, ...], int] = {}
    for word in words:
        ids = tuple(_id(shown, part) for part in word.split(","))
        slots[ids] = slots.get(ids, 0) + 1
    _check_disjoint(shown, slots)
    if max(slots.values()) > MOST_SLOTS:
        raise _refused(shown, f"at most {MOST_SLOTS} jobs can share a GPU")
    return tuple(Device(",".join(ids), ids, count) for ids, count in slots.items())


def _id(shown: str, part: str) -> str:
    text = part.strip()
    if not text:
        raise _refused(shown, "a GPU id is missing beside a comma or between quotes")
    if _INDEX.fullmatch(text):
        return str(int(text))  # 00 is 0
    if text.lower() in (NONE, CPU_LANE):
        raise _refused(shown, f"{text.lower()} is not a GPU id and cannot stand beside one")
    if re.search(r"\s", text):
        raise _refused(shown, f'"{text}" has a space in it; name each slot as a word of its own')
    if re.fullmatch(r"[0-9]+[-:.]+[0-9]+", text):
        raise _refused(shown, f'"{text}" is a range, which gpud does not read; name each GPU')
    if not _UUID.fullmatch(text):
        raise _refused(shown, f'"{text}" is neither a GPU index nor a UUID (GPU-…, MIG-…)')
    return text


def _check_disjoint(shown: str, slots: dict[tuple[str, ...], int]) -> None:
    seen: dict[str, tuple[str, ...]] = {}
    for ids in slots:
        for one in ids:
            if seen.get(one) == ids:
                raise _refused(shown, f"GPU {one} stands twice in {','.join(ids)}")
            if one in seen:
                both = f"{','.join(seen[one])} and in {','.join(ids)}"
                raise _refused(shown, f"GPU {one} stands in {both}, which may not overlap")
            seen[one] = ids


def _refused(shown: str, why: str) -> GpudError:
    return GpudError(f"cannot use {shown}: {why}", kind="usage", hint=HINT)
