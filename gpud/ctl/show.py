"""`gpuctl show`: all that is known of a job on one sheet, its attempts and its story."""

from __future__ import annotations

from gpud.amounts import format_bytes
from gpud.client.connection import ask
from gpud.client.wire import from_text
from gpud.ctl import story, words
from gpud.ctl.args import JSON, Option, Verb
from gpud.ctl.gpus import names_by_uuid
from gpud.ctl.render import Screen, clock, duration, print_json, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gpud.ctl.args import Args

NO_NAMES: Mapping[str, str] = {}
LABEL = 12
OF_ONE_ELEMENT = ("next try", "started", "ended")  # not facts about its array
USUAL_RETRY_ON = ("failed", "killed", "timed-out", "lost")  # a test holds it against the core


def run(args: Args) -> int:
    request: dict[str, Any] = {"type": "show", "jobs": args.words or ["@"]}
    if args["audit"]:
        request["audit"] = True
    reply = ask(args["socket"], request)
    if args["json"]:
        print_json(reply)
        return 0
    on = screen()
    details = reply["jobs"]
    of_gpus = any(story.is_of_gpus(event) for detail in details for event in detail["story"])
    names = names_by_uuid(args["socket"]) if of_gpus else {}
    sheets = [sheet_of_array(array, on) for array in reply.get("arrays", ())]
    sheets += [sheet(detail, on, names) for detail in details]
    print("\n\n".join(map("\n".join, sheets)))
    return 0


def sheet(detail: dict[str, Any], on: Screen, names: Mapping[str, str] = NO_NAMES) -> list[str]:
    """`names`: of GPUs, by UUID, as the other screens have them."""
    job = detail["job"]
    lines = [headline(job, on)]
    if job["why"] or job["reason"]:
        lines += on.folded(job["why"] or job["reason"])
    lines.append("")
    lines += [f"{label:<{LABEL}}{on.clean(value)}" for label, value in _facts(detail, on) if value]
    if detail["attempts"]:
        lines += ["", on.paint("attempts", "bold")]
        for attempt in detail["attempts"]:
            lines += _attempt(job["id"], attempt, on)
    if detail.get("audit"):
        lines += ["", on.paint("asked for", "bold")]
        lines += [f"  {_asked(one)}" for one in detail["audit"]]
    if detail["story"]:
        lines += ["", on.paint("story", "bold")]
        lines += story.lines([story.with_names(e, names) for e in detail["story"]], on)
    return lines


def sheet_of_array(array: dict[str, Any], on: Screen) -> list[str]:
    """How many elements are where, which ended badly, and what all of them run."""
    detail, counts = array["example"], array["counts"]
    name = f" ({on.clean(detail['job']['name'])})" if detail["job"]["name"] else ""
    which = on.paint(f"array {array['array']}[{array['indices']}]", "bold")
    told = [
        on.paint(f"{number} {word}", words.COLOUR_OF.get(word, ""))
        for word, number in sorted(counts.items(), key=lambda item: words.ORDER.index(item[0]))
    ]
    lines = [f"{which}{name}: {', '.join(told)}"]
    if array.get("bad"):
        lines += on.folded(f"ended badly: {array['array']}[{array['bad']}]")
    rules = [f"at most {array['at_most']} at a time"] if array.get("at_most") else []
    if array.get("max_fails"):
        rules.append(f"{words.plural(array['max_fails'], 'failed element')} hold the rest")
    facts = [("elements", str(array["size"])), ("rules", ", ".join(rules))]
    facts += [fact for fact in _facts(detail, on) if fact[0] not in OF_ONE_ELEMENT]
    lines.append("")
    lines += [f"{label:<{LABEL}}{on.clean(value)}" for label, value in facts if value]
    first = array["indices"].partition(",")[0].partition("-")[0]
    return [*lines, "", on.paint(f"one of them: gpuctl show '{array['array']}[{first}]'", "dim")]


def headline(job: dict[str, Any], on: Screen) -> str:
    name = f" ({on.clean(job['name'])})" if job["name"] else ""
    word, colour = words.state_cell(job)
    told = words.ending(job) if job["outcome"] else word
    waits = job["state"] in ("queued", "held")
    if paused_at_ms := job.get("paused_at_ms"):
        told += f" for {duration((on.now_ms - paused_at_ms) / 1000)}"
    elif not waits and (time := words.ran(job, on)):
        told += f" {'after' if job['outcome'] else 'for'} {time}"
    if lease := words.lease_of(job):
        told += f" on {words.devices_in_words(lease)}"
    element = f" = {words.job_id(job)}" if job.get("array") else ""
    which = on.paint(f"job {job['id']}{element}", "bold")
    return f"{which}{name}: {on.paint(told, colour)}"


def _after(detail: dict[str, Any]) -> str:
    """Jobs that come first, and what becomes of it when they fail."""
    parts = [", ".join(detail.get("after", ()))]
    if ended := detail.get("after_any"):
        parts.append(f"the end of {', '.join(ended)}")
    told = " and ".join(filter(None, parts))
    waits = detail.get("after_failed") == "wait"
    return f"{told} (waits when one of them fails)" if told and waits else told


def _facts(detail: dict[str, Any], on: Screen) -> list[tuple[str, str]]:
    job = detail["job"]
    argv = detail["argv"]
    limit, usual = detail["time_limit_s"], detail.get("usual_vram_mib")
    names = [from_text(name) for name in detail["env_names"]]
    return [
        ("command", words.command(job)),
        ("run as", "exactly these words" if argv else " ".join(map(from_text, detail["shell"]))),
        ("setup", from_text(detail["setup"])),
        ("retry args", from_text(detail["retry_args"])),
        ("directory", from_text(detail["cwd"])),
        ("GPUs", words.asked(job)),
        ("usual VRAM", words.size(usual) if usual else ""),
        ("group", job.get("group", "")),
        ("labels", ", ".join(f"{k}={v}" for k, v in job.get("labels", {}).items())),
        ("priority", words.priority(job["priority"])),
        ("retries", _retries(detail)),
        ("after", _after(detail)),
        ("begins", clock(detail["begin_ms"]) if detail.get("begin_ms") else ""),
        ("deadline", clock(detail["deadline_ms"]) if detail.get("deadline_ms") else ""),
        ("next try", clock(job["not_before_ms"]) if job["not_before_ms"] else ""),
        ("time limit", duration(limit) if limit is not None else ""),
        ("grace", duration(detail["grace_s"])),
        ("checkpoint", job.get("checkpoint", "")),
        ("user", _user(detail["uid"])),
        ("source", " ".join(filter(None, (job["source"], job["where"])))),
        ("environment", words.plural(len(names), "variable") if names else ""),
        ("submitted", _moment(job["submitted_at_ms"], on)),
        ("started", _moment(job["started_at_ms"], on)),
        ("paused", _moment(job.get("paused_at_ms", 0), on)),
        ("ended", _moment(job["ended_at_ms"], on)),
    ]


def _retries(detail: dict[str, Any]) -> str:
    """ "2 of 3 left, after 10s up to 10m, on oom"; which ends are tried again only where that is
    not the usual."""
    on = list(detail.get("retry_on") or USUAL_RETRY_ON)
    usual = set(on) == set(USUAL_RETRY_ON)
    if not detail["retries"]:
        return "" if usual else f"none, so retry-on ({', '.join(map(str, on))}) has no effect"
    left = f"{detail['job']['retries_left']} of {detail['retries']} left"
    pauses = f"after {duration(detail['backoff_s'])} up to {duration(detail['backoff_max_s'])}"
    return f"{left}, {pauses}" if usual else f"{left}, {pauses}, on {', '.join(map(str, on))}"


def _asked(one: dict[str, Any]) -> str:
    who = _user(one["uid"])
    return f"{clock(one['at_ms'])}  {one['verb']} by {who} (uid {one['uid']}, pid {one['pid']})"


def _moment(at_ms: int, on: Screen) -> str:
    return f"{clock(at_ms)} ({on.ago(at_ms)})" if at_ms else ""


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _attempt(job: int, attempt: dict[str, Any], on: Screen) -> list[str]:
    """What became of it, and below where its output is: a path is copied, so it is never cut."""
    word = str(attempt["outcome"] or attempt["phase"])
    parts = [words.ending(attempt) if attempt["outcome"] else word]
    if attempt["started_at_ms"]:
        parts.append(words.ran(attempt, on))
    if attempt["lease"]:
        parts.append(words.devices_in_words(attempt["lease"]))
    if attempt["user_s"] is not None:
        parts.append(f"CPU {duration(attempt['user_s'] + (attempt['system_s'] or 0))}")
    if attempt["max_rss_kib"]:
        parts.append(f"{attempt['max_rss_kib'] / 1024:.0f} MiB")
    parts += words.gpu_use(attempt)
    if attempt["pid"] and not attempt["outcome"]:
        parts.append(f"pid {attempt['pid']}")
    colour = words.COLOUR_OF.get(word, "")
    told = on.folded(f"  {job}.{attempt['attempt']}  {', '.join(parts)}", indent=6)
    lines = [on.paint(line, colour) for line in told]
    lines += on.folded(f"      {attempt['why']}", indent=6) if attempt["why"] else []
    return [*lines, f"      {_log(attempt, on)}"] if attempt["log"] else lines


def _log(attempt: dict[str, Any], on: Screen) -> str:
    if gone_at_ms := attempt.get("log_gone_at_ms"):
        return f"its log was removed {_moment(gone_at_ms, on)}"
    cut = attempt.get("log_cut")
    room = f" ({format_bytes(cut[1] - cut[0])} of it were cut out)" if cut else ""
    return f"{on.clean(attempt['log'])}{room}"


VERBS = [
    Verb(
        "show",
        "Show all that is known of a job: attempts, logs, story.",
        run,
        words="[JOBS ...]",
        most=None,
        options=(Option("audit", "who has asked for what, too"), JSON),
        about="Without JOBS: the last submitted one.",
        examples=("gpuctl show 42", "gpuctl show @ --json | jq -r .jobs[].attempts[].log"),
    ),
]
