"""The configuration in force: sources made from it, and how a changed file is taken over.

Called by daemon/serve.py. A reload validates first; on any problem the old configuration stays as
it is. What cannot change while gpud runs is named, with the word "restart".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from gpud.config.load import load
from gpud.config.retention import MIB, limits_of
from gpud.config.rules import ruling_of
from gpud.config.schema import Config, SourceConfig
from gpud.daemon.app import App
from gpud.daemon.devices import Plan
from gpud.errors import GpudError
from gpud.ports import Source

RULES = ("windows", "groups", "users", "labels", "fair_share")
NEEDS_RESTART = ("state_dir", "socket", "cgroup", "log", "access")


def cpu_slots_of(config: Config) -> int:
    """As configured, else the processors that we may use."""
    given = config.pool.cpu_slots
    return len(os.sched_getaffinity(0)) if given is None else given


class Configured:
    def __init__(
        self, app: App, path: Path | None, config: Config, plan_of: Callable[[Config], Plan]
    ) -> None:
        self._app = app
        self._path = path
        self._config = config
        self._at_start = config  # what needs a restart stays as it was then
        self._plan_of = plan_of  # the command line's words go before the file's
        self._work: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    def start_sources(self) -> None:
        for name, source in self._config.source.items():
            self._start(name, source)

    def reload(self) -> list[str]:
        """What is different now, a sentence each. Raises GpudError; nothing has changed then."""
        if self._path is None:
            raise GpudError("cannot reload: gpud was started without a configuration file")
        old, new = self._config, load(self._path)
        if new.access.mode != self._at_start.access.mode:  # it says as whom the sources' jobs run
            raise GpudError("cannot reload: access.mode has changed: this needs a restart")
        changes = []
        if new.pool != old.pool:
            changes.append(self._change_pool(new))
        if new.pool.maker != self._at_start.pool.maker:
            changes.append("pool.maker has changed: this needs a restart")
        if new.defaults != old.defaults:
            self._app.defaults = new.defaults
            changes.append("the defaults of jobs have changed")
        if new.metrics != old.metrics:
            self._app.offer_metrics(new.metrics.listen)
            changes.append(f"metrics are offered at {new.metrics.listen or 'no address'}")
        if new.retention != old.retention:
            self._app.housekeeping.keep(limits_of(new.retention))
            self._app.log_caps.keep(new.retention.log_cap * MIB)
            changes.append("[retention] has changed")
        changes += self._change_rules(old, new)
        changes += self._change_sources(old, new)
        changes += [
            f"{key} has changed: this needs a restart"
            for key in NEEDS_RESTART
            if getattr(new, key) != getattr(self._at_start, key)
        ]
        self._config = new
        return changes or ["nothing has changed"]

    def _change_pool(self, new: Config) -> str:
        plan = self._plan_of(new)
        self._app.gpus.replan(plan)
        if plan.named is None:
            return "the pool has changed: every GPU there is, and the lane cpu"
        return "the pool is now " + ", ".join(d.key for d in (*plan.named, *plan.lane))

    def _change_rules(self, old: Config, new: Config) -> list[str]:
        before, ruling = ruling_of(old), ruling_of(new)
        self._app.rule(ruling.rules, ruling.windows, ruling.notes)
        changed = [name for name in RULES if getattr(new, name) != getattr(old, name)]
        said = [f"[{name}] has changed" for name in changed]
        return said + [note for note in ruling.notes if note not in before.notes]

    def _change_sources(self, old: Config, new: Config) -> list[str]:
        changes = []
        for name in old.source.keys() | new.source.keys():
            before, after = old.source.get(name), new.source.get(name)
            if before == after and new.defaults == old.defaults:
                continue
            changes.append(
                f"source {name} is new"
                if before is None
                else f"source {name} has changed"
                if after
                else f"source {name} is gone"
            )
            task = asyncio.ensure_future(self._replace(name, before is not None, after))
            self._work.add(task)
            task.add_done_callback(self._replaced)
        return sorted(changes)

    def _replaced(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.result()  # a bug goes on to the loop's handler, and ends the daemon

    async def _replace(self, name: str, was: bool, source: SourceConfig | None) -> None:
        async with self._one_at_a_time:  # a source never has two readers
            if was:
                await self._app.sources_hosted.remove(name)
            if source is not None:
                self._start(name, source)

    def _start(self, name: str, source: SourceConfig) -> None:
        made: Source = self._app.make_source(name, source)
        self._app.sources_hosted.add(made, source.path)
