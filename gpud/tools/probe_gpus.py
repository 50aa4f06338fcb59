"""Probe of `gpud doctor`: the GPUs, by the NVIDIA driver, against those that are configured."""

from __future__ import annotations

from collections.abc import Iterator

from gpud.config import gpu_words
from gpud.errors import GpudError
from gpud.tools.findings import Finding, Situation


def gpus(situation: Situation) -> Iterator[Finding]:
    from gpud.devices.detect import Survey, survey

    words = situation.config.pool.gpus
    try:
        found: Survey = survey()
    except GpudError as error:
        missing = type(error.__cause__).__name__ == "NVMLError_LibraryNotFound"
        if missing and words:
            text = "no NVIDIA driver found: NVML library missing; the configured slots are used"
            yield Finding("note", "gpus", text)
        elif missing:
            text = "no NVIDIA driver found: NVML library missing"
            yield Finding("note", "gpus", text, error.hint)
        else:
            do = "nvidia-smi should work first; dmesg says more"
            yield Finding("problem", "gpus", error.message, do)
        return
    for gpu in found.gpus:
        text = f"{gpu.number}: {gpu.name}, {gpu.memory_mib} MiB, {gpu.uuid}"
        yield Finding("ok", "gpus", text)
    for problem in found.problems:
        yield Finding("problem", "gpus", problem, "see dmesg for Xid; it may need a restart")
    if not found.gpus and not found.problems:
        yield Finding("note", "gpus", "the NVIDIA driver has none", "lspci | grep -i nvidia")
    else:
        yield Finding("ok", "gpus", f"driver {found.driver}")
    if words:
        yield from _configured(words, found.gpus)


def _configured(words: tuple[str, ...], found: tuple[object, ...]) -> Iterator[Finding]:
    uuids = [str(getattr(gpu, "uuid", "")) for gpu in found]
    for device in gpu_words.from_config(words):
        for one in device.ids:
            known = int(one) < len(found) if one.isdigit() else _matches(one, uuids)
            if not known:
                text = f"pool.gpus names {one}, which this machine does not have"
                yield Finding("problem", "gpus", text, "nvidia-smi -L lists what there is")


def _matches(one: str, uuids: list[str]) -> bool:
    """CUDA takes the beginning of a UUID; MIG ids are not looked for."""
    return one.startswith("MIG-") or any(uuid.startswith(one) for uuid in uuids)
