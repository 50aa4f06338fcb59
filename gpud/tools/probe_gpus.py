"""Probe of `gpud doctor`: the GPUs, by the NVIDIA driver, against those that are configured.

The driver is asked through a process that can be left behind, so one that hangs is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpud.config import gpu_words
from gpud.devices.whose import OTHERS_UNSEEN
from gpud.errors import GpudError
from gpud.ports import GpusFound
from gpud.tools.findings import Finding, Situation

LIMIT_S = 4.5  # less than doctor gives a probe: the finding is to be ours


def gpus(situation: Situation) -> Iterator[Finding]:
    from gpud.devices.survey import survey

    words = situation.config.pool.gpus
    try:
        found = survey(LIMIT_S)
    except GpudError as error:
        yield _no_answer(error, configured=bool(words))
        return
    for gpu in found.gpus:
        text = f"{gpu.index}: {gpu.model}, {gpu.memory_mib} MiB, {gpu.uuid}"
        yield Finding("ok", "gpus", text)
    for index, why in found.unusable.items():
        text = f"GPU {index} cannot be used: {why}"
        yield Finding("problem", "gpus", text, "see dmesg for Xid; it may need a restart")
    yield Finding("ok", "gpus", f"driver {found.driver}")
    if found.blind:
        text = f"{OTHERS_UNSEEN}: {found.blind}"
        yield Finding("note", "gpus", text, "name GPUs that nobody else uses: pool.gpus")
    if words:
        yield from _configured(words, found)


def _no_answer(error: GpudError, *, configured: bool) -> Finding:
    """No driver and no GPU are how some machines are; the rest is a problem."""
    why = error.message.partition(": ")[2]
    if error.kind != "not-found":
        do = "nvidia-smi should work first; dmesg says more"
        if "does not answer" in why:
            do = "see whether nvidia-smi answers; asleep GPUs take long: nvidia-smi -pm 1"
        return Finding("problem", "gpus", error.message, do)
    if configured:
        return Finding("note", "gpus", f"{why}; the configured slots are used")
    return Finding("note", "gpus", why, error.hint)


def _configured(words: tuple[str, ...], found: GpusFound) -> Iterator[Finding]:
    for device in gpu_words.from_config(words):
        for one in device.ids:
            if not _is_there(one, found):
                text = f"pool.gpus names {one}, which this machine does not have"
                yield Finding("problem", "gpus", text, "nvidia-smi -L lists what there is")


def _is_there(one: str, found: GpusFound) -> bool:
    """CUDA takes the beginning of a UUID, and MIG instances by their GPU's too (MIG-GPU-…/1/0)."""
    if one.isdigit():
        return int(one) in found.unusable or any(gpu.index == int(one) for gpu in found.gpus)
    return one.startswith("MIG-GPU-") or any(gpu.uuid.startswith(one) for gpu in found.gpus)
