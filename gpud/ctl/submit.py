"""`gpuctl submit`: one command from the command line, or many from a file, into the queue.

The hot verb: what it imports is what a submit needs (tests/ctl/test_start.py). Says what the
submitter's directory, environment and umask are; everything that is not said is the daemon's
default.
"""

from __future__ import annotations

import os
import sys

from gpud.client import patience, wire
from gpud.ctl.args import JSON, Option, Verb, count, duration_s
from gpud.environment import capture
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    from gpud.ctl.args import Args

    class Given(Protocol):
        def __getitem__(self, option: str, /) -> Any: ...


COMMAND_HINT = 'a command line: gpuctl submit "python train.py > log"   many: gpuctl submit -'
WORDS_HINT = (
    "several words are one program and its arguments; for a shell command write one word; "
    "for many, one a line: gpuctl submit -"
)
SHOWN = 60  # characters of a word in a message
FIELDS = (
    ("name", "name"),
    ("gpus", "gpus"),
    ("vram", "vram_mib"),
    ("gpu-model", "gpu_model"),
    ("group", "group"),
    ("retry-on", "retry_on"),
    ("after", "after"),
    ("after-any", "after_any"),
    ("after-failed", "after_failed"),
    ("priority", "priority"),
    ("retries", "retries"),
    ("time-limit", "time_limit_s"),
    ("begin", "begin_ms"),
    ("deadline", "deadline_ms"),
    ("grace", "grace_s"),
    ("checkpoint", "checkpoint"),
)  # option -> field of the protocol that it is
OF_SUBMIT = (("array", "array"), ("max-fails", "max_fails"))


def run(args: Args) -> int:
    fields = _fields(args)
    request: dict[str, Any] = {"type": "submit", "key": args["key"] or os.urandom(12).hex()}
    lines: list[bytes] = []
    path = args["file"] or (None if args.exact or args.words[:1] != ["-"] else "-")
    if path is None:
        request["job"] = fields | _command(args)
    else:
        if args["file"] and args.words:
            raise _cannot("a command and --file exclude each other")
        if args.words[1:]:
            raise _cannot("options go before -", "for example: gpuctl submit --name sweep -")
        from gpud.ctl.many import job_lines

        lines = job_lines(path, directory_of(args["cwd"]))
        request |= {"count": len(lines), "common": fields}
    reply = patience.submit(args["socket"], request, lines)
    _report(reply, args)
    if args["retry-on"] and not args["retries"] and path is None:
        _check_retries(args, int(reply["first"]))
    return 0


def _command(args: Args) -> dict[str, Any]:
    """One word is a line for the shell; several words, or what follows `--`, are the argv."""
    if not args.words:
        raise _cannot("no command", COMMAND_HINT)
    words = [wire.to_text(os.fsencode(word)) for word in args.words]
    if args.exact or len(words) > 1:
        # Two quoted command lines, as it seems: "sleep 1" "sleep 2".
        program = args.words[0]
        if len(words) > 1 and len(program.split()) > 1 and not _exists(program, args):
            shown = program if len(program) <= SHOWN else program[:SHOWN] + "…"
            raise _cannot(f'there is no program "{shown}"', WORDS_HINT)
        return {"argv": words}
    if not args.words[0].strip():
        raise _cannot("the command is empty", COMMAND_HINT)
    return {"command": words[0]}


def _exists(program: str, args: Args) -> bool:
    """As the job would look for it."""
    name, directory = os.fsencode(program), directory_of(args["cwd"])
    places = [b""] if b"/" in name else os.environb.get(b"PATH", b"").split(b":")
    return any(os.path.exists(os.path.join(directory, place, name)) for place in places)


def _fields(args: Args) -> dict[str, Any]:
    """What all jobs of this submit have in common, as JobFields."""
    fields: dict[str, Any] = {
        "cwd": wire.to_text(directory_of(args["cwd"])),
        "env": [wire.to_text(pair) for pair in capture(os.environb)],
        "umask": _umask(),
    }
    if args["hold"]:
        fields["held"] = True
    for option, field in OF_SUBMIT:
        if args[option] is not None:
            fields[field] = args[option]
    return fields | fields_of(args)


def fields_of(given: Given) -> dict[str, Any]:
    """What these options say of a job, as JobFields. `given` has None for what was not given."""
    fields: dict[str, Any] = {
        field: given[option] for option, field in FIELDS if given[option] is not None
    }
    if given["env"]:
        fields["env_add"] = [wire.to_text(os.fsencode(pair)) for pair in given["env"]]
    if given["retry-args"] is not None:
        fields["retry_args"] = wire.to_text(os.fsencode(given["retry-args"]))
    if given["backoff"] is not None:
        fields["backoff_s"], longest_s = given["backoff"]
        if longest_s is not None:
            fields["backoff_max_s"] = longest_s
    if given["label"]:
        fields["labels"] = dict(given["label"])
    if given["exclusive"]:
        fields["exclusive"] = True
    return fields


def directory_of(given: str | None) -> bytes:
    """The given one, seen from here."""
    try:
        here = os.getcwdb()
    except OSError as error:
        if given is None or not os.path.isabs(given):
            raise _cannot(
                "the current directory does not exist any more", "say where: --cwd DIR"
            ) from error
        here = b"/"
    return os.path.join(here, os.fsencode(given)) if given else here


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _report(reply: dict[str, Any], args: Args) -> None:
    first, number = int(reply["first"]), int(reply["count"])
    last = first + number - 1
    if args["json"]:
        from gpud.ctl.render import print_json

        print_json(reply)
    elif not sys.stdout.isatty():
        ids = _without_elements(range(first, last + 1), reply.get("arrays", ()))
        sys.stdout.write("".join([f"{job}\n" for job in ids]))
    else:
        which, all_of = f"jobs {first}-{last}", f" ({number})"
        if args["array"] and reply.get("arrays") == [[first, last]]:
            which = f"job {first}[{args['array'].partition('%')[0]}]"
        elif number == 1:
            which, all_of = f"job {first}", ""
        if reply.get("again") and args["key"]:
            print(f'{which}: there already, by the key "{args["key"]}"{all_of}')
        else:
            held = args["hold"] or reply.get("note")
            print(f"{which} {'held' if held else 'queued'}{all_of}")
    if reply.get("note"):
        from gpud.ctl.trouble import remark

        remark(str(reply["note"]))


def _without_elements(ids: range, arrays: Iterable[tuple[int, int]]) -> Iterable[int]:
    """Of each array the first id, which stands for all of it."""
    from itertools import chain

    parts, begin = [], ids.start
    for first, last in arrays:
        parts.append(range(begin, first + 1))
        begin = last + 1
    return chain(*parts, range(begin, ids.stop))


def _check_retries(args: Args, job: int) -> None:
    """Where no retries are given, only the daemon knows whether its defaults have any."""
    from gpud.client.connection import ask
    from gpud.ctl.trouble import remark

    try:
        (detail,) = ask(args["socket"], {"type": "show", "jobs": [job]})["jobs"]
    except GpudError:
        return  # the job is queued, and that is what was asked for
    if not detail["retries"]:
        remark(f"job {job} is not tried again: --retry-on needs --retries")


def _pair(text: str) -> str:
    if text.find("=") < 1:
        raise ValueError("write NAME=VALUE")
    return text


def _gpus(text: str) -> Any:
    short = len(text) < 4 and text.isascii() and text.isdecimal()  # as most are: within all bounds
    return int(text) if short else _read("read_gpus", text)


def _vram(text: str) -> Any:
    return _read("read_vram", text)


def _model(text: str) -> Any:
    return _read("read_gpu_model", text)


def _ends(text: str) -> Any:
    return _read("read_retry_on", text)


def _jobs(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _priority(text: str) -> Any:
    return _read("read_priority", text)


def _group(text: str) -> str:
    return str(_belonging("read_group", text))


def _label(text: str) -> Any:
    return _belonging("read_label", text)


def _belonging(how: str, text: str) -> Any:
    from gpud.config import belonging

    try:
        return getattr(belonging, how)(text)
    except GpudError as error:
        raise ValueError(error.message) from error


def _moment(text: str) -> int:
    import time

    from gpud.config.moments import read_moment

    try:
        return read_moment(text, time.time())
    except GpudError as error:
        raise ValueError(error.message) from error


def _failed(text: str) -> str:
    if text not in ("cancel", "wait"):
        raise ValueError("write cancel or wait")
    return text


def _array(text: str) -> str:
    from gpud.config.arrays import read_array

    try:
        read_array(text)
    except GpudError as error:
        raise ValueError(error.message) from error
    return text


def _signal(text: str) -> Any:
    return _read("read_checkpoint", text)


def _backoff(text: str) -> Any:
    return _read("read_backoff", text)


def _read(how: str, text: str) -> Any:
    """By config/asking.py, which most submits do not need."""
    from gpud.config import asking

    try:
        return getattr(asking, how)(text)
    except GpudError as error:
        raise ValueError(error.message) from error


def _cannot(why: str, hint: str = "") -> GpudError:
    return GpudError(
        f"cannot submit: {why}", kind="usage", hint=hint or "see: gpuctl submit --help"
    )


VERBS = [
    Verb(
        "submit",
        "Queue a shell command, or many.",
        run,
        words="COMMAND | WORD ... | -- WORD ... | -",
        least=0,
        most=None,
        runs_command=True,
        options=(
            Option("name", "a name for people and for name:NAME", "NAME"),
            Option("gpus", "how many; 0.5: a share of one; 0: none", "N", _gpus),
            Option("vram", "where that much memory is free: 12G, auto", "SIZE", _vram),
            Option("gpu-model", "only on GPUs with this in their name", "TEXT", _model),
            Option("exclusive", "nobody beside it on its GPUs"),
            Option("group", "together with others: gpuctl group", "NAME", _group),
            Option("label", "for people and for label:K=V", "K=V", _label, short="l", many=True),
            Option("priority", "higher runs first (default: 0), or urgent", "N", _priority),
            Option("cwd", "where to run (default: here)", "DIR"),
            Option(
                "env",
                "set a variable; may be repeated",
                "NAME=VALUE",
                _pair,
                many=True,
                secret=True,
            ),
            Option("key", "submit at most once under this key", "KEY"),
            Option("retries", "how often to try again when it fails", "N", count),
            Option("backoff", "pauses before tries: 30s, 30s..10m", "TIME", _backoff),
            Option("retry-on", "with --retries: failed,signal,timed-out,lost,oom,1", "ENDS", _ends),
            Option("retry-args", "added to the command from the second try on", "TEXT"),
            Option("time-limit", "stop it after that long: 90s, 2h30m", "TIME", duration_s),
            Option("grace", "between TERM and KILL when it is stopped", "TIME", duration_s),
            Option("checkpoint", "the signal at which it saves and leaves", "SIGNAL", _signal),
            Option("after", "start when these have succeeded: 12,14-20,@", "JOBS", _jobs),
            Option("after-any", "start when these have ended, however", "JOBS", _jobs),
            Option("after-failed", "when that cannot be: cancel (default), wait", "WHAT", _failed),
            Option("begin", "not before: 22:00, +2h, 2026-11-22 09:30", "WHEN", _moment),
            Option("deadline", "done by then, or not started at all", "WHEN", _moment),
            Option("array", "a job for each index: 0-99, 0,2,5-9%4", "INDICES", _array),
            Option("max-fails", "after so many failed ones hold the rest", "N", count),
            Option("hold", "do not start before: gpuctl release"),
            Option("file", "the commands of a file, as with -", "FILE"),
            JSON,
        ),
        about="""\
One word is a line for the shell; several words, or all after --, are run as
they are. `-` reads commands from standard input, one a line; so does --file
from a file, and all of them are queued at once, or none. The lines are those
of a queue file: a backslash at the end and a here-document go on, and a line
`#gpud: name=big gpus=2` is about the next job, over the options given here.
The job gets your directory, umask and environment, without
CUDA_VISIBLE_DEVICES, GPUD_*, SLURM_*, TMUX* and SSH_* (SSH_AUTH_SOCK stays).
Without --gpus a job gets one slot. --vram alone shares a GPU with others as
long as what was promised fits; auto takes what earlier runs of the same
program took, and the first run goes alone.
--array queues a job for each index, which it finds in GPUD_ARRAY_INDEX; the
id of the first, 42, stands for all of them, 42[7] and 42[3-9] for some.
In a pipe only the ids are printed; of an array that of the first.
With --key a submit can be repeated: the same jobs under the same key are
queued once, from whatever directory and with whatever environment (--env is
a part of the jobs). Other jobs under that key are refused.""",
        examples=(
            'gpuctl submit "python train.py --lr 1e-3 > log"',
            "gpuctl submit --gpus 2 --time-limit 12h python train.py",
            "for s in 1 2 3; do echo python train.py --seed $s; done | gpuctl submit -",
        ),
    ),
]
