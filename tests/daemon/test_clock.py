"""Windows that open and close by the clock: a clock of the test's own, and no waiting."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gpud.config.limits import LAST_MS
from gpud.config.load import parse
from gpud.config.rules import ruling_of
from gpud.config.schema import Config
from gpud.config.windows import read_windows
from gpud.core.events import DevicesChanged, Event, JobsSubmitted, WindowsTurned
from gpud.core.explain import explain
from gpud.core.model import Device, JobId, JobSpec, NewJob
from gpud.core.rules import EVERY_USER, Rule, Window
from gpud.daemon.clock import LOOK_AGAIN_S, Clock
from gpud.daemon.engine import Engine
from gpud.executors.fake import FakeExecutor, FakeRunner
from gpud.store.sqlite import SqliteStore

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = read_windows("22:00-07:00 Mon-Fri, all day Sat-Sun")


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def config(text: str) -> Config:
    return parse(text, name="gpud.toml", directory=Path("/"))


class Bench:
    """A clock on the wall that a test sets, and what the provider says when it looks at it."""

    def __init__(self, at: str) -> None:
        self.at = berlin(at)
        self.posted: list[Event] = []
        self.clock = Clock(self.posted.append, now_s=lambda: self.at, zone=BERLIN)

    def look(self, at: str) -> None:
        self.at = berlin(at)
        self.clock.look()

    def delay_s(self) -> float:
        assert self.clock._timer is not None
        return self.clock._timer.when() - asyncio.get_running_loop().time()


def play(scene: Callable[[Bench], Awaitable[None]], at: str = "2026-11-20 21:00") -> None:
    async def whole() -> None:
        bench = Bench(at)
        await scene(bench)
        bench.clock.close()

    asyncio.run(whole())


def told(**windows: Window) -> WindowsTurned:
    return WindowsTurned("clock", {key.replace("_", ":"): w for key, w in windows.items()})


def at_ms(text: str) -> int:
    return round(1000 * berlin(text))


def test_it_says_what_is_open_and_until_when_and_nothing_twice() -> None:
    async def scene(bench: Bench) -> None:
        bench.clock.set({"group:lr": NIGHTS})
        opens = Window(False, at_ms("2026-11-20 22:00"), "which opens at 22:00")
        assert bench.posted == [told(group_lr=opens)]
        bench.look("2026-11-20 21:30")
        assert len(bench.posted) == 1
        bench.look("2026-11-20 22:00")
        assert bench.posted[1:] == [told(group_lr=Window(True, at_ms("2026-11-23 00:00")))]

    play(scene)


def test_it_looks_again_at_each_change_and_once_a_minute() -> None:
    async def scene(bench: Bench) -> None:
        bench.clock.set({"group:lr": NIGHTS})
        assert LOOK_AGAIN_S - 1 < bench.delay_s() <= LOOK_AGAIN_S
        bench.look("2026-11-20 21:59:50")
        assert 9 < bench.delay_s() <= 10
        bench.clock.set({})
        assert bench.clock._timer is None, "without windows it never wakes up"

    play(scene)


def test_a_clock_that_is_set_is_followed() -> None:
    async def scene(bench: Bench) -> None:
        bench.clock.set({"group:lr": NIGHTS})
        bench.look("2026-11-20 22:00")
        bench.look("2026-11-20 21:00")
        assert bench.posted[-1] == bench.posted[0]

    play(scene)


def test_a_state_that_was_loaded_again_is_told_again() -> None:
    async def scene(bench: Bench) -> None:
        bench.clock.set({"group:lr": NIGHTS})
        bench.clock.tell_again()
        assert bench.posted[0] == bench.posted[1]

    play(scene)


def test_what_never_opens_and_what_never_closes() -> None:
    async def scene(bench: Bench) -> None:
        bench.clock.set({"group:a": read_windows("all day")})
        assert bench.posted == [told(group_a=Window(True, LAST_MS))]

    play(scene)


def test_a_job_starts_when_its_window_opens(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        ruling = ruling_of(config('[users."*"]\nwindow = "22:00-07:00"\n'))
        store = SqliteStore.open(tmp_path, durable=False)
        device = DevicesChanged((Device("0", ("0",)),))
        now_ms = lambda: round(1000 * bench.at)  # noqa: E731
        engine = Engine(store, device, ruling.rules, clock=now_ms)
        executor = FakeExecutor(FakeRunner(), engine.post)
        engine.executor = executor
        executor.open()
        clock = Clock(engine.post, now_s=lambda: bench.at, zone=BERLIN)
        clock.set(ruling.windows)
        jobs = (NewJob(JobSpec(b"train")),)
        answer = await engine.ask(lambda request: JobsSubmitted(request, jobs))
        job = JobId(answer.jobs[0])
        window = "its window (22:00-07:00)"
        assert explain(engine.state, job, now_ms()) == (f"waits for {window}, which opens at 22:00")
        bench.at = berlin("2026-11-20 22:00")
        clock.look()
        async with asyncio.timeout(20):
            while job in engine.state.jobs and not engine.state.attempts:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        clock.close()
        executor.close()
        engine.close()
        store.close()

    play(scene)


# -- the rules, from the configuration -------------------------------------------------------------


def rules(text: str) -> Any:
    return ruling_of(config(text))


def test_rules_of_groups_labels_and_gpus() -> None:
    found = rules(
        """
        [windows]
        nights = "22:00-07:00"
        [groups.lr]
        limit = 4
        max_fails = 2
        window = "nights"
        [groups.nothing]
        [labels."a=b"]
        window = "9:00-17:00"
        [pool]
        windows = { 0 = "nights" }
        """
    )
    nights = {"clock": "the window nights"}
    assert found.rules.gates == {
        "group:lr": Rule(4, 2, nights),
        "label:a=b": Rule(windows={"clock": "its window (9:00-17:00)"}),
        "gpu:0": Rule(windows=nights),
    }
    assert found.windows["gpu:0"] == found.windows["group:lr"] == read_windows("22:00-07:00")
    assert not found.rules.half_life_ms


def test_users_are_numbers_and_have_what_everybody_has() -> None:
    name = pwd.getpwuid(1).pw_name
    found = rules(
        f"""
        [users."*"]
        limit = 8
        weight = 2
        [users.{name}]
        weight = 3
        [users.77]
        limit = 1
        [fair_share]
        half_life_s = "1d"
        """
    )
    assert found.rules.gates == {
        "user:1": Rule(8),
        "user:77": Rule(1),
        EVERY_USER: Rule(8),
    }
    assert found.rules.users == {
        1: name,
        77: "77",
        os.geteuid(): pwd.getpwuid(os.geteuid()).pw_name,
    }
    assert (found.rules.weights, found.rules.weight) == ({1: 3.0, 77: 2.0}, 2.0)
    assert found.rules.half_life_ms == 86_400_000


def test_a_user_who_is_not_known_is_named() -> None:
    found = rules("[users.nobody-of-that-name]\nlimit = 1\n")
    assert not found.rules.gates
    assert found.notes == (
        "users.nobody-of-that-name has no effect: this machine knows no such user",
    )


@pytest.mark.parametrize("text", ["", "[groups.lr]\n", "[users.root]\nweight = 1\n"])
def test_without_rules_there_are_no_gates(text: str) -> None:
    assert not rules(text).rules.gates
