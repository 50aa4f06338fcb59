"""`gpuctl events`: what happened, one event a line, and with -f what happens."""

from __future__ import annotations

from gpud.client import patience
from gpud.client.connection import ask
from gpud.ctl import story
from gpud.ctl.args import Option, Verb, count
from gpud.ctl.gpus import names_by_uuid
from gpud.ctl.render import Screen, clock, json_text, screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpud.ctl.args import Args

SHOWN = 50  # without --since
SILENCE_S = 1.0  # the last event may have been pruned: then nothing says that this was all
KIND_WIDTH = 10
NO_SEQ_IS_HIGHER = 2**53 - 1


def run(args: Args) -> int:
    on = screen()
    events = _following(args) if args["follow"] else _past(args)
    names: dict[str, str] | None = None
    for event in events:
        if args["json"]:
            print(json_text(event), flush=args["follow"])
            continue
        if names is None and story.is_of_gpus(event):
            names = names_by_uuid(args["socket"])
        print(line(story.with_names(event, names or {}), on), flush=args["follow"])
    return 0


def line(event: dict[str, Any], on: Screen) -> str:
    job, attempt, many = event["job"], event["attempt"], event.get("count", 1)
    if not job:
        which = "gpud"
    elif many > 1:
        which = f"{job}-{job + many - 1}"
    else:
        which = f"{job}.{attempt}" if attempt else str(job)
    when = f"{event['seq']:>6}  {clock(event['at_ms'])}  {which:>7}"
    return on.fit(f"{when}  {story.in_words(event, KIND_WIDTH)}")


def _following(args: Args) -> Iterator[dict[str, Any]]:
    for event in patience.follow(args["socket"], since=args["since"]):
        if event is not None:
            yield event


def _past(args: Args) -> Iterator[dict[str, Any]]:
    """What is there now; the protocol has only streams without end, so it ends at the newest."""
    last = ask(args["socket"], {"type": "follow", "since": NO_SEQ_IS_HIGHER})["since"]
    since = max(0, last - SHOWN) if args["since"] is None else args["since"]
    if since >= last:
        return
    following = patience.follow(args["socket"], since=since, pulse_s=SILENCE_S)
    next(following)  # it is set up
    for event in following:
        if event is None:
            return
        yield event
        if event["seq"] >= last:
            return


VERBS = [
    Verb(
        "events",
        "Show what happened, and with -f what happens.",
        run,
        options=(
            Option("follow", "go on with what happens from now on", short="f"),
            Option("since", "what came after the event SEQ (0: all)", "SEQ", count),
            Option("json", "one JSON object a line (docs/protocol.md)"),
        ),
        about=f"""\
Without --since: the last {SHOWN}, or with -f nothing of the past. The first column
is SEQ, from which a reader can go on.""",
        examples=("gpuctl events -f", "gpuctl events --since 1812 --json"),
    ),
]
