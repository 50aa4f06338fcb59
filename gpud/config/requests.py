"""From what a job asks for, in people's words, to the core's request and retry policy, and back.

Called by the sources, the control server and `gpud run`. Raises GpudError whose message is a
clause: the caller knows whose it is. Pure.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import structs

from gpud.config.asking import AUTO, OOM, check_gpus, check_retry_on, read_gpu_model
from gpud.config.limits import MOST_VRAM_MIB
from gpud.core.likeness import likeness_of
from gpud.core.model import AUTO_VRAM, FULL_MILLI, JobSpec, Outcome, Request, RetryPolicy
from gpud.errors import GpudError

Asked = tuple[float | None, int | str, str, bool]  # gpus, vram in MiB or AUTO, model, exclusive


def asked_of(request: Request) -> Asked:
    """What a request says, in people's words."""
    vram = AUTO if request.vram_mib == AUTO_VRAM else request.vram_mib
    return gpus_of(request), vram, request.gpu_model, request.exclusive


def gpus_of(request: Request) -> float | None:
    """How people write it: 2, 0.5, or nothing."""
    return request.share_milli / FULL_MILLI if request.share_milli else request.gpus


@lru_cache(maxsize=1024)
def request_of(gpus: float | None, vram: int | str, gpu_model: str, exclusive: bool) -> Request:
    """`vram` 0: none asked for. Raises GpudError for what contradicts itself or has no bounds."""
    whole: int | None = None
    share = 0
    if gpus is not None:
        try:
            check_gpus(gpus)
        except GpudError as error:
            raise GpudError(f"gpus: {error.message}") from error
        whole = int(gpus) if gpus == int(gpus) else 1
        share = round(gpus * FULL_MILLI) if gpus != int(gpus) else 0
    if vram == AUTO:
        vram = AUTO_VRAM
    elif not isinstance(vram, int) or vram < 0:
        raise GpudError('vram: it takes an amount of memory, like 12G, or "auto"')
    elif vram > MOST_VRAM_MIB:
        raise GpudError("vram: no GPU has that much memory")
    if gpu_model:
        try:
            read_gpu_model(gpu_model)
        except GpudError as error:
            raise GpudError(f"gpu_model: {error.message}") from error
    if exclusive and share:
        raise GpudError("a share of a GPU cannot be exclusive")
    if whole == 0 and (vram or gpu_model or exclusive):
        raise GpudError("a job for the CPU (gpus 0) cannot ask for memory, model or all of a GPU")
    return Request(whole, 0 if share == FULL_MILLI else share, vram, gpu_model, exclusive)


def retry_on(policy: RetryPolicy, ends: tuple[str | int, ...]) -> RetryPolicy:
    """The policy that retries after these ends only."""
    try:
        check_retry_on(ends)
    except GpudError as error:
        raise GpudError(f"retry_on: {error.message}") from error
    words = ["killed" if end == "signal" else end for end in ends if isinstance(end, str)]
    on = tuple(Outcome(word) for word in dict.fromkeys(words) if word != OOM)
    codes = tuple(sorted({end for end in ends if isinstance(end, int)}))
    return structs.replace(policy, on=on, oom=OOM in words, codes=codes)


def ends_of(policy: RetryPolicy) -> tuple[str | int, ...]:
    """What it retries on, in people's words."""
    words = [outcome.value for outcome in policy.on] + ([OOM] if policy.oom else [])
    return (*words, *policy.codes)


def backoff_of(policy: RetryPolicy, first_s: float | None, longest_s: float | None) -> RetryPolicy:
    """With other pauses; None: not said. A first pause that is longer than the longest so far
    makes it longer."""
    first_s = policy.backoff_s if first_s is None else first_s
    longest_s = max(first_s, policy.backoff_max_s) if longest_s is None else longest_s
    return structs.replace(policy, backoff_s=first_s, backoff_max_s=longest_s)


def with_likeness(spec: JobSpec) -> JobSpec:
    """A job that takes as much memory as its like did: which those are."""
    if spec.request.vram_mib != AUTO_VRAM:
        return spec
    likeness = likeness_of(spec.name, spec.command, spec.uid)
    return structs.replace(spec, request=structs.replace(spec.request, likeness=likeness))
