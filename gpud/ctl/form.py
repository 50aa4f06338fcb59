"""What can be changed of a job as a small TOML for an editor, and what somebody has made of it.

Used by edit.py. The keys are the options of `gpuctl submit`, and so are the words of the values;
"none" takes a thing away. Only what differs from what was there is a change: a line that is taken
out, or left alone, leaves the job as it is. Values of variables are never shown.
"""

from __future__ import annotations

import binascii
import os
import re
import tomllib

from gpud.amounts import URGENT, URGENT_WORD
from gpud.config.units import format_duration
from gpud.ctl import words
from gpud.ctl.args import nearest
from gpud.ctl.render import clock
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Values = dict[str, Any]

NONE = "none"
COMMENT = 28  # the column in which one begins
LINE = 76  # columns
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HINTS = {
    "priority": 'higher runs first; "urgent" makes room',
    "gpus": 'how many; 0.5: a share of one; 0: no GPU; "none": one slot of any',
    "vram": 'free on each of them: "12G", "auto", "none"',
    "gpu-model": 'a part of its name: "A100"',
    "exclusive": "nobody beside it",
    "time-limit": '"2h30m", "none"',
    "grace": "between TERM and KILL",
    "begin": 'not before: "22:00", "+2h", "none"',
    "deadline": 'done by then, or not started: "06:00", "none"',
    "backoff": "pauses before tries",
    "retry-args": "added to the command from the second try on",
    "group": 'together with others: "lr", "none"',
    "label": "for people and for label:KEY=VALUE",
    "checkpoint": 'the signal at which it saves and leaves: "SIGUSR1", "none"',
    "after": 'when these have succeeded: "12,14-20", "none"',
    "after-any": "when these have ended, however",
    "after-failed": 'what becomes of it when that cannot be: "cancel", "wait"',
}
GROUPS = (
    ("", ("command", "argv", "name", "group", "label", "cwd", "priority")),
    ("GPUs", ("gpus", "vram", "gpu-model", "exclusive")),
    ("time", ("time-limit", "grace", "begin", "deadline")),
    ("tries", ("retries", "backoff", "retry-on", "retry-args", "checkpoint")),
    ("order", ("after", "after-any", "after-failed")),
)
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
OF_LATER_TRIES = ("priority", "retries", "backoff", "retry-on", "retry-args")


def write(detail: dict[str, Any]) -> str:
    """The form of a job, from what `show` says of it."""
    job = detail["job"]
    active = job["state"] == "active"
    name = f" ({one_line(job['name'])})" if job["name"] else ""
    lines = [f"# Job {words.job_id(job)}{name}, {words.state(job)}"]
    if job["reason"]:
        lines.append(f"# {one_line(job['reason'])}")
    lines += ["#", "# Saving this changes the job. A line that stays as it is changes nothing."]
    if active:
        lines.append("# It runs: only this can be changed now.")
    values = _values(detail)
    for title, keys in GROUPS:
        shown = [key for key in keys if key in values and (not active or key in OF_LATER_TRIES)]
        if shown:
            lines += ["", *([f"# {title}"] if title else [])]
            lines += [_line(key, values[key]) for key in shown]
    if not active:
        lines += ["", "[env]", *_about_variables(detail)]
    return "\n".join(lines) + "\n"


def read(text: str, lines_above: int = 0) -> Values:
    """What stands in a form. `lines_above`: so many lines stand above it in the file. Raises
    GpudError with a clause."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why = re.sub(r"line (\d+)", lambda m: f"line {int(m[1]) + lines_above}", str(error))
        why = f"this is not TOML, where texts stand in quotes: {why[:1].lower()}{why[1:]}"
        raise GpudError(why, kind="usage") from error


def changes(before: str, values: Values) -> Values:
    """The options that say something else now than in the form `before`, as a person would give
    them to `gpuctl edit`: texts, for `exclusive` a truth, for `argv` and `env` lists of texts.
    Raises GpudError with a clause."""
    was = tomllib.loads(before)
    known = [key for _, keys in GROUPS for key in keys]
    found: Values = {}
    for key, value in values.items():
        option = key.replace("_", "-")
        if option == "env":
            if pairs := _pairs(value):
                found["env"] = pairs
        elif option == "label" and value != was.get("label"):
            found["label"] = _labels(value, was.get("label", []))
        elif option not in known:
            raise GpudError(f'there is no "{key}"{nearest(option, known)}', kind="usage")
        elif value != was.get(option):
            found[option] = _as_given(option, value)
    return found


def _as_given(option: str, value: Any) -> Any:
    if option == "argv":
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise GpudError("argv takes a list of texts", kind="usage")
        return value
    if option == "exclusive":
        if not isinstance(value, bool):
            raise GpudError("exclusive takes true or false", kind="usage")
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
        raise GpudError(f"{option} cannot be {_shown(value)}", kind="usage")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(table: Any) -> list[str]:
    if not isinstance(table, dict):
        raise GpudError("env takes lines like NAME = 'value'", kind="usage")
    for name, value in table.items():
        if not NAME.fullmatch(name) or isinstance(value, (bool, dict, list)):
            raise GpudError("env takes lines like NAME = 'value'", kind="usage")
    return [f"{name}={value}" for name, value in table.items()]


def _labels(value: Any, was: list[str]) -> list[str]:
    """As options; `KEY=` for those that are there no more."""
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise GpudError("label takes a list of texts like KEY=VALUE", kind="usage")
    kept = {label.partition("=")[0] for label in value}
    keys = [label.partition("=")[0] for label in was]
    return [*value, *(f"{key}=" for key in keys if key not in kept)]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "that"


# -- values ----------------------------------------------------------------------------------------


def _values(detail: dict[str, Any]) -> Values:
    job, argv = detail["job"], detail["argv"]
    first, longest = detail["backoff_s"], detail["backoff_max_s"]
    what = {"argv": [text(word) for word in argv]} if argv else {"command": text(job["command"])}
    limit = detail["time_limit_s"]
    return what | {
        "name": job["name"],
        "group": job.get("group") or NONE,
        "label": [f"{key}={value}" for key, value in job.get("labels", {}).items()],
        "cwd": text(detail["cwd"]),
        "priority": _priority(job["priority"]),
        "gpus": NONE if job["gpus"] is None else job["gpus"],
        "vram": _size(job.get("vram_mib", 0)),
        "gpu-model": job.get("gpu_model", ""),
        "exclusive": job.get("exclusive", False),
        "time-limit": NONE if limit is None else format_duration(limit),
        "grace": format_duration(detail["grace_s"]),
        "begin": _moment(detail.get("begin_ms", 0)),
        "deadline": _moment(detail.get("deadline_ms", 0)),
        "retries": detail["retries"],
        "backoff": f"{format_duration(first)}..{format_duration(longest)}",
        "retry-on": ",".join(map(str, detail.get("retry_on", ()))),
        "retry-args": text(detail["retry_args"]),
        "checkpoint": job.get("checkpoint") or NONE,
        "after": ",".join(detail.get("after", ())) or NONE,
        "after-any": ",".join(detail.get("after_any", ())) or NONE,
        "after-failed": detail.get("after_failed", "cancel"),
    }


def _priority(priority: int) -> int | str:
    return URGENT_WORD if priority >= URGENT else priority


def _size(vram: int | str) -> str:
    if not vram or isinstance(vram, str):
        return vram or NONE
    return f"{vram}M" if vram % 1024 else f"{vram // 1024}G"


def _moment(at_ms: int) -> str:
    return clock(at_ms) if at_ms else NONE


def text(value: str | dict[str, str]) -> str:
    """A text of the wire; bytes that are not UTF-8 as Python's file names have them."""
    if isinstance(value, str):
        return value
    return os.fsdecode(binascii.a2b_base64(value["b64"]))


# -- TOML ------------------------------------------------------------------------------------------


def _line(key: str, value: Any) -> str:
    line = f"{key} = {toml(value)}"
    hint = HINTS.get(key, "")
    if not hint or "\n" in line or len(line) + len(hint) > 3 * LINE // 2:
        return line
    return f"{line:<{COMMENT}}  # {hint}"


def _about_variables(detail: dict[str, Any]) -> list[str]:
    lines = ["# a line for each variable that is to be set: NAME = 'value'"]
    names = [one_line(text(name)) for name in detail["env_names"]]
    row = "# it has, with values that are not shown:" if names else "# it has none yet"
    for name in names:
        if len(row) + len(name) + 1 > LINE:
            lines.append(row)
            row = "#"
        row += f" {name}"
    return [*lines, row]


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return _text(value)


def _text(value: str) -> str:
    """As little escaped as can be: commands are full of quotes and backslashes."""
    plain = all(c.isprintable() or c in "\n\t" or _is_byte(c) for c in value)
    if plain and "\n" in value:
        if "'''" not in value and not value.endswith("'"):
            return f"'''\n{value}'''"
        return '"""\n' + "".join(c if c == "\n" else _escaped(c) for c in value) + '"""'
    if plain and not set(value) & {'"', "\\", "\t"}:
        return f'"{value}"'
    if plain and "'" not in value:
        return f"'{value}'"
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(c: str) -> str:
    if c in ESCAPES:
        return ESCAPES[c]
    if c.isprintable() or _is_byte(c):
        return c
    return f"\\U{ord(c):08x}"


def _is_byte(c: str) -> bool:
    """One that is not UTF-8."""
    return "\udc80" <= c <= "\udcff"


def one_line(value: str) -> str:
    return "".join(c if c.isprintable() or _is_byte(c) else " " for c in value)
