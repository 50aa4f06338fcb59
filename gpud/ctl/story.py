"""What happened, in words: the events of a job's story, and of gpud itself.

Used by show.py and events.py. Owns the sentence of each event. What gpud decided by itself about a
job or a GPU is a sentence; the other events are their kind and what goes with it. Takes
gpud/protocol/replies.py as plain values, from a newer gpud, too: what only that one knows is
`key=value`.
"""

from __future__ import annotations

from gpud.amounts import format_bytes, format_priority
from gpud.client.wire import from_text
from gpud.ctl.render import Screen, clock, duration
from gpud.ctl.words import CPU_ONLY, device, devices_in_words, ending, gpu, listed, size
from gpud.signals import signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

OF_GPUS = ("wrong-gpu", "gpu-quarantined", "gpu-healed")
UNITS: dict[str, Callable[[Any], str]] = {"_s": duration, "_ms": clock, "_mib": size}
NONE_AT_0 = ("vram_mib", "begin_ms", "deadline_ms")
ODD = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, OSError)


def lines(events: list[dict[str, Any]], on: Screen) -> list[str]:
    """One line an event; the date only where it changes."""
    found, day = [], ""
    for event in events:
        date, time = clock(event["at_ms"]).split()
        if date != day:
            found.append(f"  {on.paint(date, 'dim')}")
            day = date
        attempt = f"try {event['attempt']}: " if event["attempt"] > 1 else ""
        found += on.folded(f"  {time}  {attempt}{in_words(event)}", indent=12)
    return found


def is_of_gpus(event: dict[str, Any]) -> bool:
    """Whether it names GPUs by their UUIDs."""
    return event["kind"] in OF_GPUS


def with_names(event: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """With what people call these GPUs now in the place of the UUIDs."""
    if not names or not is_of_gpus(event):
        return event
    detail = dict(event["detail"])
    for key in detail.keys() & {"gpu", "on", "assigned"}:
        value = detail[key]
        if isinstance(value, list):
            detail[key] = [names.get(uuid, uuid) for uuid in value]
        else:
            detail[key] = names.get(value, value)
    return {**event, "detail": detail}


def in_words(event: dict[str, Any], kind_width: int = 0) -> str:
    """On one line: "started  pid 4711", or a sentence."""
    left = dict(event["detail"])
    sentence = _sentence(event["kind"], left)
    if sentence:
        return ", ".join([sentence, *_details(left, event)])
    return f"{event['kind']:<{kind_width}}  {', '.join(_details(left, event))}".rstrip()


def _sentence(kind: str, left: dict[str, Any]) -> str:
    """What it says is taken from `left`. "" for a kind that has none, or says something else."""
    say = SENTENCES.get(kind)
    if say is None:
        return ""
    rest = dict(left)
    try:
        sentence = say(rest)
    except ODD:
        return ""
    for key in left.keys() - rest.keys():
        del left[key]
    return sentence


def _stopped(left: dict[str, Any]) -> str:
    reason = left.pop("reason")
    if reason == "guest":
        owner = left.pop("owner", "")
        came = "the owner of its guest GPU came back"
        return f"stopped by gpud: {came}: {owner}" if owner else f"stopped by gpud: {came}"
    if reason == "idle":
        return "stopped by gpud: it did nothing on its GPUs"
    return f"stopped by gpud: {_value(reason)}"


def _checkpoint(left: dict[str, Any]) -> str:
    told, reason, owner = "asked to save and leave", left.pop("reason"), left.pop("owner", "")
    if reason == "guest":
        told += ": the owner of its guest GPU came back"
    elif reason == "preempted":
        told += f": to make room for job {left.pop('made_for')}, which is urgent"
    elif reason != "asked":
        told += f": {_value(reason)}"
    return f"{told}: {owner}" if owner else told


def _wrong_gpu(left: dict[str, Any]) -> str:
    process = f"pid {left.pop('pid')}"
    if program := left.pop("program", ""):
        process += f" ({program})"
    used, given = _gpu(left.pop("on")), listed([_gpu(key) for key in left.pop("assigned")])
    return f"on a wrong GPU: {process} uses {used}, the job was given {given}"


def _idle(left: dict[str, Any]) -> str:
    return f"idle: its GPUs have done nothing for {duration(left.pop('idle_s'))}"


def _quarantined(left: dict[str, Any]) -> str:
    return f"{_gpu(left.pop('gpu'))} was quarantined: {from_text(left.pop('why'))}"


def _healed(left: dict[str, Any]) -> str:
    name, why = _gpu(left.pop("gpu")), from_text(left.pop("why"))
    return f"{name} was healed {why}" if why == "by hand" else f"{name} was healed: {why}"


def _gpu(key: str) -> str:
    return gpu(device(key))


def _edited(left: dict[str, Any]) -> str:
    changed = dict(left.pop("changed"))
    names = changed.pop("env", ())
    told = [f"variables {', '.join(map(from_text, names))}"] if names else []
    for key, (before, now) in changed.items():
        told.append(f"{_field(key)} {_said(key, now)} (was {_said(key, before)})")
    return f"edited: {', '.join(told)}"


def _field(key: str) -> str:
    """As the option is called: "time-limit" for time_limit_s."""
    for unit in UNITS:
        key = key.removesuffix(unit)
    return key.replace("_", "-")


def _said(key: str, value: Any) -> str:
    """As a person would say it."""
    if value is None or value in ("", []) or (value == 0 and key in NONE_AT_0):
        return "none"
    if key == "priority":
        return format_priority(int(value))
    if isinstance(value, list):
        return ",".join(
            [from_text(item) if isinstance(item, dict) else str(item) for item in value]
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return next((say(value) for unit, say in UNITS.items() if key.endswith(unit)), str(value))
    return from_text(value)


def _moved(left: dict[str, Any]) -> str:
    to, beside = left.pop("to"), left.pop("beside", 0)
    return f"moved {to} job {beside}" if beside else f"moved: {to} of all that waited"


def _swapped(left: dict[str, Any]) -> str:
    return f"swapped with job {left.pop('beside')}"


def _log_cut(left: dict[str, Any]) -> str:
    return f"its log lost its middle: {format_bytes(left.pop('bytes'))} were cut out"


def _log_too_large(left: dict[str, Any]) -> str:
    size, why = format_bytes(left.pop("bytes")), from_text(left.pop("why"))
    return f"its log has {size} and cannot be cut: {why}"


SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "stopped-by-gpud": _stopped,
    "checkpoint-requested": _checkpoint,
    "wrong-gpu": _wrong_gpu,
    "gpu-idle": _idle,
    "gpu-quarantined": _quarantined,
    "gpu-healed": _healed,
    "edited": _edited,
    "log-cut": _log_cut,
    "log-too-large": _log_too_large,
    "moved": _moved,
    "swapped": _swapped,
}


def _details(left: dict[str, Any], event: dict[str, Any]) -> list[str]:
    """What is left to say: ["failed with exit status 1", "again at 09:08:36"]."""
    told = []
    if left.get("outcome"):
        end = {key: left.pop(key, None) for key in ("outcome", "exit_code", "signal")}
        told.append(ending(end))
    for key, value in left.items():
        if value == "":
            continue
        say = TOLD.get(key)
        try:
            told.append(say(value, event) if say else f"{key}={_value(value)}")
        except ODD:
            told.append(f"{key}={_value(value)}")
    return told


def _leased(lease: dict[str, int], _: dict[str, Any]) -> str:
    parts = devices_in_words([f"{key}:{milli}" for key, milli in lease.items()])
    return parts if parts == CPU_ONLY else f"on {parts}"


def _again(at_ms: int, event: dict[str, Any]) -> str:
    """Without the date, where it is that of the event."""
    date, time = clock(at_ms).split()
    return f"again at {time if clock(event['at_ms']).startswith(date) else f'{date} {time}'}"


TOLD: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "exit_code": lambda value, _: f"exit status {value}",
    "signal": lambda value, _: signal_name(value),
    "why": lambda value, _: from_text(value),
    "lease": _leased,
    "retry_at_ms": _again,
    "pid": lambda value, _: f"pid {value}",
    "processes": lambda value, _: ", ".join(value),
    "grace_s": lambda value, _: f"grace {duration(value)}",
    "source": lambda value, _: str(value),
    "gpu": lambda value, _: _gpu(value),
    "rule": lambda value, _: str(value),
    "more": lambda value, _: f"the next try gets {value}",
}


def _value(value: object) -> str:
    if isinstance(value, dict) and set(value) == {"b64"}:
        value = from_text(value)
    if isinstance(value, str):
        return value if value and " " not in value else f'"{value}"'
    if isinstance(value, (list, tuple)):
        return ",".join([_value(item) for item in value])
    from gpud.ctl.render import json_text

    return json_text(value)
