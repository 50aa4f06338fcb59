"""`gpuctl edit`: jobs that wait are changed, by options or in an editor.

The options are those of `gpuctl submit`, and what an editor gives back is read as if it had been
given as options: one grammar, and one set of sentences about what is wrong.
"""

from __future__ import annotations

import os

from gpud.client import wire
from gpud.client.connection import ask, connect
from gpud.ctl import form, submit, words
from gpud.ctl.agree import ALL_USERS, YES, all_users, chosen, report
from gpud.ctl.args import JSON, Option, Verb
from gpud.ctl.editor import Editing, is_terminal
from gpud.ctl.trouble import in_words_of
from gpud.errors import GpudError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gpud.ctl.args import Args

    Fields = dict[str, Any]

WAITING, NOT_DONE = ("queued", "held"), ("queued", "held", "active")
# What "none" makes of these, as the protocol says it.
NONE: dict[str, Any] = {
    "gpus": None,
    "vram": 0,
    "time-limit": None,
    "begin": 0,
    "deadline": 0,
    "after": [],
    "after-any": [],
    "checkpoint": form.NONE,
    "group": "",
}
OF_LATER_TRIES = {
    *("priority", "retries", "backoff_s", "backoff_max_s", "retry_on", "retry_args"),
}  # fields that can be changed while a job runs
NOTHING = object()  # such an option, when it is "none"
FIELD_OF = dict(submit.FIELDS)
COMMON = (
    *("name", "gpus", "vram", "gpu-model", "exclusive", "group", "label", "priority", "cwd", "env"),
    *("retries", "backoff", "retry-on", "retry-args", "time-limit", "grace"),
    *("after", "after-any", "after-failed", "begin", "deadline", "checkpoint"),
)
HELP = {
    "cwd": "where to run",
    "priority": "higher runs first",
    "label": "for people and for label:K=V; K=: without it",
}
SAID = """\
# {}
# Correct it below. If you leave it as it is, nothing is changed.
"""


def run(args: Args) -> int:
    fields = _fields({option.name: args[option.name] for option in OPTIONS})
    if not fields:
        return _in_editor(args)
    reply: dict[str, Any] = {"jobs": [], "refused": []}
    with connect(args["socket"]) as connection:
        states = NOT_DONE if fields.keys() <= OF_LATER_TRIES else WAITING
        jobs = chosen(connection, "edit", args, states)
        if jobs is None:
            return 1
        if jobs:
            reply = connection.ask(
                {"type": "edit", "jobs": jobs, "change": fields} | all_users(args)
            )
    return report("change", reply, args, "changed")


def _fields(given: dict[str, Any]) -> Fields:
    """What the options say, as JobFields."""
    fields: Fields = {
        FIELD_OF[name]: NONE[name] for name, value in given.items() if value is NOTHING
    }
    given = {name: None if value is NOTHING else value for name, value in given.items()}
    fields |= submit.fields_of(given)
    if given["no-exclusive"]:
        fields["exclusive"] = False
    if given["command"] is not None:
        fields["command"] = wire.to_text(os.fsencode(given["command"]))
    if given["cwd"] is not None:
        try:
            fields["cwd"] = wire.to_text(submit.directory_of(given["cwd"]))
        except GpudError as error:
            raise in_words_of("edit", error, "submit") from error
    return fields


# -- in an editor ----------------------------------------------------------------------------------


def _in_editor(args: Args) -> int:
    job, detail = _the_one(args)
    with Editing(f"edit job {job}", f"job-{job}.toml") as editing:
        before = body = form.write(detail)
        said, problem = "", None
        while True:
            typed = editing.ask(said + body).removeprefix(said)
            if typed.strip() in ("", body.strip()):
                if problem is not None:
                    raise problem
                print("nothing to change")
                return 0
            body = typed
            try:
                reply = _send(args, job, before, body)
            except GpudError as error:
                if not _may_try_again(args, error, job, detail["job"]["state"]):
                    raise
                said, problem = SAID.format(form.one_line(error.message)), error
            else:
                return report("change", reply, args, "changed")


def _the_one(args: Args) -> tuple[str, dict[str, Any]]:
    """What names the job, and all about it, if it is one that can be edited."""
    try:
        shown = ask(args["socket"], {"type": "ls", "jobs": args.words, "limit": 2})
    except GpudError as error:
        raise in_words_of("edit", error, "list") from error
    count = sum(job.get("count", 1) for job in shown["jobs"]) + shown["more"]
    if count != 1:
        raise GpudError(
            f"cannot edit {count} jobs in an editor: it takes one",
            kind="usage",
            hint="say what to change: gpuctl edit name:sweep --priority 9",
        )
    job = words.job_id(shown["jobs"][0])
    if outcome := shown["jobs"][0]["outcome"]:
        raise GpudError(f"cannot edit job {job}: it is done ({outcome})")
    (detail,) = ask(args["socket"], {"type": "show", "jobs": [job]})["jobs"]
    return job, dict(detail)


def _send(args: Args, job: str, before: str, typed: str) -> dict[str, Any]:
    """Raises GpudError for what cannot be read, and for what gpud refuses."""
    above = SAID.count("\n") if is_terminal() else 0  # where it is shown again
    try:
        fields = _read(form.changes(before, form.read(typed, above)))
    except GpudError as error:
        why = f"cannot edit job {job}: {error.message}"
        raise GpudError(why, kind=error.kind, hint=error.hint) from error
    if not fields:
        return {"jobs": [], "refused": []}
    reply = ask(args["socket"], {"type": "edit", "jobs": [job], "change": fields})
    if reply["refused"]:
        raise GpudError(reply["refused"][0]["message"])
    return reply


def _read(changes: dict[str, Any]) -> Fields:
    given: dict[str, Any] = {option.name: None for option in OPTIONS}
    argv = changes.pop("argv", None)
    for name, value in changes.items():
        option = next(option for option in OPTIONS if option.name == name)
        if name == "exclusive":
            given["exclusive" if value else "no-exclusive"] = True
        elif name == "env":
            given["env"] = value
        elif name == "label":
            given["label"] = [_convert(option, label) for label in value]
        else:
            given[name] = _convert(option, value)
    fields = _fields(given)
    if argv is not None:
        fields["argv"] = [wire.to_text(os.fsencode(word)) for word in argv]
    return fields


def _convert(option: Option, value: str) -> Any:
    try:
        return option.convert(value)
    except ValueError as error:
        shown = value if len(value) <= submit.SHOWN else value[: submit.SHOWN] + "…"
        raise GpudError(f'{option.name} cannot be "{shown}": {error}', kind="usage") from error


def _may_try_again(args: Args, error: GpudError, job: str, state: str) -> bool:
    """Whether a person is there, and the job is still one of which this can be changed."""
    if error.kind not in ("usage", "refused", "not-found") or not is_terminal():
        return False
    try:
        (now,) = ask(args["socket"], {"type": "ls", "jobs": [job], "limit": 1})["jobs"]
    except GpudError:
        return False
    active = [one == "active" for one in (state, now["state"])]
    return bool(not now["outcome"] and active[0] == active[1])


# -- the verb --------------------------------------------------------------------------------------


def _options() -> list[Option]:
    """Those of a submit that say something about a job; "none" takes a thing away."""
    of_submit = {option.name: option for option in submit.VERBS[0].options}
    found = [Option("command", "another line for the shell", "TEXT")]
    for name in COMMON:
        option = of_submit[name]
        found.append(
            Option(
                name,
                HELP.get(name, option.help),
                option.metavar,
                _reader(name, option.convert),
                short=option.short,
                many=option.many,
                secret=option.secret,
            )
        )
        if name == "exclusive":
            found.append(Option("no-exclusive", "others may be beside it"))
    return found


def _reader(name: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    if name in NONE:
        return lambda text: NOTHING if text == form.NONE else convert(text)
    if name == "gpu-model":  # a submit that names none does not say so
        return lambda text: convert(text) if text else ""
    return convert


OPTIONS = _options()
VERBS = [
    Verb(
        "edit",
        "Change jobs that wait.",
        run,
        words="JOBS ...",
        least=1,
        most=None,
        options=(*OPTIONS, ALL_USERS, YES, JSON),
        about="""\
Without options one job opens in $VISUAL, $EDITOR or vi, as a small TOML; what
is wrong with it is said above it, and what you have typed is never lost.
"none" takes away what --gpus, --vram, --group, --time-limit, --begin,
--deadline, --checkpoint, --after or --after-any say; "" does so for a text.
--env adds or replaces a variable, -l a label; -l KEY= takes a label away. Of
a job that runs only the priority and the retries can be changed. The story of
the job tells what was changed (gpuctl show), but no value of a variable.""",
        examples=(
            "gpuctl edit 42",
            "gpuctl edit 42 --priority 9 --gpus 2",
            "gpuctl edit 42 --command 'python x.py > log' --time-limit none",
            "gpuctl edit name:sweep --after 17 --yes",
        ),
    ),
]
