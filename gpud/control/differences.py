"""What an edit has made of a job, for its story: fields as a client writes them, before and after.

Called by control/edits.py. Of the environment there are only names: values may be secrets. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from gpud.config.requests import asked_of, ends_of
from gpud.core.edits import changed_fields
from gpud.core.model import JobSpec, Span
from gpud.protocol.replies import MOST_OF_COMMAND
from gpud.protocol.text import head_of, to_text

Words = dict[str, object]


def told(was: JobSpec, becomes: JobSpec) -> Words:
    """{"priority": [0, 9], "env": ["LR"]}: of `env` the names of the variables that differ."""
    found: Words = {}
    changed = changed_fields(was, becomes)
    if "command" in changed:
        changed.discard("argv")  # the command says it
    for field in JobSpec.__struct_fields__ if changed else ():  # in this order
        if field == "env" and field in changed:
            found[field] = _names(was.env, becomes.env)
        elif field in changed:
            say = WORDS.get(field) or _plain(field)
            before, after = say(was), say(becomes)
            found |= {key: [before[key], after[key]] for key in after if before[key] != after[key]}
    return found


def spans_of(spans: tuple[Span, ...], *, ended: bool) -> list[str]:
    """Ids and ranges."""
    found = [span for span in spans if span.ended == ended]
    return [str(s.first) if s.first == s.last else f"{s.first}-{s.last}" for s in found]


def _names(was: bytes, becomes: bytes) -> list[object]:
    before, after = set(was.split(b"\0")), set(becomes.split(b"\0"))
    differing = {pair.partition(b"=")[0] for pair in before ^ after if pair}
    return [to_text(name) for name in sorted(differing)]


def _plain(field: str) -> Callable[[JobSpec], Words]:
    def say(spec: JobSpec) -> Words:
        value = getattr(spec, field)
        return {field: head_of(value, MOST_OF_COMMAND) if isinstance(value, bytes) else value}

    return say


def _argv(spec: JobSpec) -> Words:
    return {"argv": None if spec.argv is None else [to_text(word) for word in spec.argv]}


def _shell(spec: JobSpec) -> Words:
    return {"shell": [to_text(word) for word in spec.shell]}


def _request(spec: JobSpec) -> Words:
    gpus, vram, model, exclusive = asked_of(spec.request)
    return {"gpus": gpus, "vram_mib": vram, "gpu_model": model, "exclusive": exclusive}


def _retry(spec: JobSpec) -> Words:
    policy = spec.retry
    return {
        "retries": policy.retries,
        "backoff_s": policy.backoff_s,
        "backoff_max_s": policy.backoff_max_s,
        "retry_on": list(ends_of(policy)),
    }


def _linger(spec: JobSpec) -> Words:
    return {"linger_s": "wait" if spec.linger_s is None else spec.linger_s}


def _after(spec: JobSpec) -> Words:
    return {
        "after": spans_of(spec.after.spans, ended=False),
        "after_any": spans_of(spec.after.spans, ended=True),
        "after_failed": "wait" if spec.after.patient else "cancel",
    }


WORDS: dict[str, Callable[[JobSpec], Words]] = {
    "argv": _argv,
    "shell": _shell,
    "request": _request,
    "retry": _retry,
    "linger_s": _linger,
    "after": _after,
}
