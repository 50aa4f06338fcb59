"""What happened, in words: each event that the core tells, and events of another version."""

from __future__ import annotations

from typing import Any

import pytest

from gpud.ctl import events, story
from gpud.ctl.render import Screen

from . import samples

ALICE = "pid 4711 (python of alice, 11.2 GiB)"
WRONG = "on a wrong GPU"


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({}, ""),
        ({"lease": {"0": 1000}}, "on GPU 0"),
        ({"lease": {"0": 500}}, "on 1/2 of GPU 0"),
        ({"lease": {"cpu": 62}}, "CPU only"),
        ({"lease": {"0": 1000, "1": 1000}}, "on GPUs 0 and 1"),
        ({"outcome": "failed", "exit_code": 3, "retry_at_ms": samples.NOW_MS + 4_116_000},
         "failed with exit status 3, again at 09:08:36"),
        ({"outcome": "lost", "retry_at_ms": samples.NOW_MS + 86_400_000},
         "lost, again at 2026-11-22 08:00:00"),
        ({"outcome": "not-started", "why": "no file x"}, "not-started, no file x"),
        ({"lease": {"GPU-00000007-aaaa": 1000}}, "on GPU-00000007"),
        ({"gpu": "GPU-00000007-aaaa"}, "GPU-00000007"),
        ({"pid": 7}, "pid 7"),
        ({"processes": ["sleep (7)", "tee (8)"]}, "sleep (7), tee (8)"),
        ({"grace_s": 10.0}, "grace 10s"),
        ({"source": "night"}, "night"),
        ({"lease": "odd", "retry_at_ms": "x", "new": [1, "a b"]},
         'lease=odd, retry_at_ms=x, new=1,"a b"'),
    ],
)  # fmt: skip
def test_details_of_events(detail: dict[str, Any], text: str) -> None:
    event = {"at_ms": samples.NOW_MS, "kind": "told", "detail": detail}
    assert story.in_words(event) == f"told  {text}".rstrip()


@pytest.mark.parametrize(
    ("kind", "detail", "text"),
    [
        ("stopped-by-gpud", {"reason": "guest", "owner": ALICE},
         f"stopped by gpud: the owner of its guest GPU came back: {ALICE}"),
        ("stopped-by-gpud", {"reason": "guest"},
         "stopped by gpud: the owner of its guest GPU came back"),
        ("stopped-by-gpud", {"reason": "idle"}, "stopped by gpud: it did nothing on its GPUs"),
        ("stopped-by-gpud", {"reason": "heat", "grace_s": 10.0},
         "stopped by gpud: heat, grace 10s"),
        ("checkpoint-requested", {"reason": "asked", "signal": 10, "grace_s": 10.0},
         "asked to save and leave, SIGUSR1, grace 10s"),
        ("checkpoint-requested", {"reason": "guest", "owner": ALICE, "signal": 15},
         f"asked to save and leave: the owner of its guest GPU came back: {ALICE}, SIGTERM"),
        ("checkpoint-requested", {"reason": "heat", "signal": 40},
         "asked to save and leave: heat, signal 40"),
        ("wrong-gpu",
         {"pid": 71, "program": "python", "on": "GPU-00000001-aaaa",
          "assigned": ["GPU-00000000-aaaa", "MIG-8a"]},
         f"{WRONG}: pid 71 (python) uses GPU-00000001, the job was given GPU-00000000 and MIG-8a"),
        ("wrong-gpu", {"pid": 71, "program": "", "on": "GPU-1", "assigned": ["GPU-0"]},
         f"{WRONG}: pid 71 uses GPU-1, the job was given GPU-0"),
        ("gpu-idle", {"idle_s": 1800}, "idle: its GPUs have done nothing for 30m"),
        ("gpu-quarantined", {"gpu": "GPU-00000006-aaaa", "why": samples.OFF_THE_BUS},
         "GPU-00000006 was quarantined: Xid 79: it has fallen off the bus"),
        ("gpu-healed", {"gpu": "GPU-00000006-aaaa", "why": "by hand"},
         "GPU-00000006 was healed by hand"),
        ("gpu-healed", {"gpu": "GPU-00000006-aaaa", "why": "the machine was started again"},
         "GPU-00000006 was healed: the machine was started again"),
        ("edited", {"changed": {"priority": [0, 9], "command": ["a", {"b64": "/w=="}]}},
         "edited: priority 9 (was 0), command \\xff (was a)"),
        ("edited", {"changed": {"env": ["LR", "SEED"], "time_limit_s": [None, 5400.0]}},
         "edited: variables LR, SEED, time-limit 1h30m (was none)"),
        ("edited",
         {"changed": {"gpus": [None, 0], "exclusive": [False, True], "vram_mib": ["auto", 0]}},
         "edited: gpus 0 (was none), exclusive yes (was no), vram none (was auto)"),
        ("edited",
         {"changed": {"begin_ms": [0, samples.NOW_MS], "after": [["12", "14-20"], []]}},
         "edited: begin 2026-11-21 08:00:00 (was none), after none (was 12,14-20)"),
        ("moved", {"to": "before", "beside": 17}, "moved before job 17"),
        ("moved", {"to": "first"}, "moved: first of all that waited"),
        ("swapped", {"beside": 17}, "swapped with job 17"),
        # What another version tells of the same kind is not lost.
        ("gpu-healed", {"gpu": "GPU-00000006-aaaa"}, "gpu-healed  GPU-00000006"),
        ("gpu-idle", {"idle_s": "long"}, "gpu-idle  idle_s=long"),
        ("wrong-gpu", {"pid": 71, "assigned": 3}, "wrong-gpu  pid 71, assigned=3"),
    ],
)  # fmt: skip
def test_what_gpud_did_by_itself_is_a_sentence(
    kind: str, detail: dict[str, Any], text: str
) -> None:
    event = {"seq": 7, "job": 9, "attempt": 2, "at_ms": samples.NOW_MS, "kind": kind}
    event["detail"] = detail
    assert story.in_words(event) == text
    assert story.lines([event], Screen())[1] == f"  08:00:00  try 2: {text}"
    line = events.line(event, Screen())
    assert line == f"     7  2026-11-21 08:00:00      9.2  {story.in_words(event, 10)}"


NAMES = {"GPU-00000006-aaaa": "6", "GPU-00000007-aaaa": "7", "MIG-8a": "MIG-8a"}


@pytest.mark.parametrize(
    ("kind", "detail", "text"),
    [
        ("gpu-quarantined", {"gpu": "GPU-00000006-aaaa", "why": "Xid 79"},
         "GPU 6 was quarantined: Xid 79"),
        ("gpu-healed", {"gpu": "MIG-8a", "why": "by hand"}, "MIG-8a was healed by hand"),
        ("gpu-healed", {"gpu": "GPU-00000009-aaaa", "why": "by hand"},
         "GPU-00000009 was healed by hand"),
        ("wrong-gpu",
         {"pid": 7, "on": "GPU-00000006-aaaa",
          "assigned": ["GPU-00000007-aaaa", "MIG-8a", "GPU-00000009-aaaa"]},
         f"{WRONG}: pid 7 uses GPU 6, the job was given GPU 7, MIG-8a and GPU-00000009"),
        ("submitted", {"on": "GPU-00000006-aaaa"}, "submitted  on=GPU-00000006-aaaa"),
    ],
)  # fmt: skip
def test_gpus_are_called_as_in_the_table(kind: str, detail: dict[str, Any], text: str) -> None:
    event = {"kind": kind, "detail": detail, "at_ms": samples.NOW_MS}
    assert story.in_words(story.with_names(event, NAMES)) == text
