"""A `Driver` over the stub (the fixture `here`), one look at a time, without a watcher."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gpud.core.sight import GpuSight
from gpud.devices.driver import Driver
from gpud.devices.knowledge import Sights
from gpud.devices.patience import Limits
from gpud.ports import Watched
from tests.contracts.watchers import HASTY


class Warnings(list[tuple[int | None, str]]):
    """Which helpers were lost: at which GPU, if they had come to one, and why."""

    def __call__(self, event: str, *, why: str, **where: Any) -> None:
        assert event == "gpu_helper_lost"
        assert None not in where.values()  # the log would say `gpu: null`
        self.append((where.get("gpu"), why))


@asynccontextmanager
async def driving(limits: Limits = HASTY) -> AsyncIterator[tuple[Driver, Warnings]]:
    warnings = Warnings()
    driver = Driver(lambda message: None, blind="", limits=limits, warn=warnings)
    try:
        yield driver, warnings
    finally:
        await driver.close()


async def look(driver: Driver) -> dict[str, GpuSight]:
    sights = Sights()
    await driver.look(Watched(), sights, health=True)
    return {sight.uuid: sight for sight in driver.knowledge.all_of(sights)}


def problems(seen: dict[str, GpuSight]) -> list[str]:
    return [sight.problem for sight in seen.values()]
