"""The composition: which adapters this daemon is made of. The only file that names them.

Called by daemon/serve.py and daemon/run.py. Opens everything in the order in which it may be used
and closes it in reverse; a failure on the way closes what was open. It is also what the control
server is given of the daemon (gpud/ports.py, Controlled).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from gpud.config.belonging import uid_of
from gpud.config.schema import JobDefaults, SourceConfig
from gpud.control.access import Policy
from gpud.core.actions import Answer
from gpud.core.changes import By
from gpud.core.events import Event
from gpud.core.explain_room import misuses, unlisted
from gpud.core.retention import Limits
from gpud.core.rules import NO_RULES, Rules
from gpud.core.state import State
from gpud.daemon.engine import Engine, Listener, wall_ms
from gpud.daemon.gpus import Gpus
from gpud.daemon.hosting import Sources
from gpud.daemon.housekeeping import Housekeeping
from gpud.daemon.log_caps import LogCaps
from gpud.daemon.strikes import Strikes
from gpud.errors import GpudError, why_os
from gpud.executors.accounts import Accounts
from gpud.executors.launch import Launching
from gpud.executors.runner import RunnerExecutor
from gpud.executors.transient import Manager
from gpud.ports import Pruned, Source, Store, Watched
from gpud.protocol.replies import SourceView
from gpud.store.files import StateFiles
from gpud.store.sqlite import SqliteStore
from gpud.store.statedir import StateDir

if TYPE_CHECKING:
    from gpud.config.windows import Windows
    from gpud.control.server import ControlServer
    from gpud.daemon.clock import Clock
    from gpud.daemon.metering import Metering

# What asyncio reports to the loop's handler when accept(2) runs out; it tries again by itself.
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


PRIVATE = Policy()


class Settings(Struct, frozen=True):
    """What an instance needs to know to exist; everything else can change while it runs."""

    durable: bool = True
    sockets: tuple[Path, ...] = ()  # where it listens; none: nobody can talk to it
    cgroup: Path | None = None
    manager: Manager | None = None  # what runs us; the runner is then to be its service, too
    defaults: JobDefaults = JobDefaults()
    rules: Rules = NO_RULES
    metrics: str | None = None  # where they are offered to scrapers
    policy: Policy = PRIVATE


class App:
    """One instance of gpud on one state directory. Make it with `App.open`."""

    def __init__(
        self,
        directory: StateDir,
        store: SqliteStore,
        settings: Settings,
        gpus: Gpus,
        launching: Launching | None,
        warn: Callable[..., None],
    ) -> None:
        self.started_at_ms = wall_ms()
        self.state_dir = str(directory.path)
        self.socket = str(settings.sockets[0]) if settings.sockets else ""
        self.defaults = settings.defaults
        self.submits_as = os.geteuid()
        self.forecasting = asyncio.Lock()
        self.bug: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reloader: Callable[[], Sequence[str]] | None = None
        strikes = Strikes(directory.path)
        self.engine = Engine(store, gpus.pool, settings.rules, strikes=strikes, warn=warn)
        self._clock: Clock | None = None
        self._metering: Metering | None = None
        self._notes: Sequence[str] = ()
        self.sources_hosted = Sources(self.engine, on_bug=self._on_bug, warn=warn)
        files = StateFiles(directory.path)
        self.executor = RunnerExecutor(
            directory.path,
            directory.token,
            self.engine.post,
            deliver=self.engine.deliver,
            cgroup=settings.cgroup,
            manager=settings.manager,
            launching=launching,
            accounts=Accounts(settings.policy.admins) if settings.policy.system else None,
            warn=warn,
        )
        self.engine.executor = self.executor
        self.engine.disk_full = files.full
        self.engine.meet_runner = self.executor.meet_again
        self.gpus = gpus
        gpus.attach(self.engine, self._watched)
        self.housekeeping = Housekeeping(self.engine, files, warn=warn, on_bug=self._on_bug)
        self.log_caps = LogCaps(self.engine, files, on_bug=self._on_bug)
        self._directory = directory
        self._store = store
        self._settings = settings
        self._warn = warn
        self._servers: list[ControlServer] = []

    @classmethod
    async def open(
        cls,
        directory: StateDir,
        settings: Settings,
        gpus: Gpus,
        *,
        launching: Launching | None = None,
        warn: Callable[..., None],
    ) -> App:
        """`launching`: the runner, if it is being started. Raises GpudError with one sentence;
        `directory` and `gpus` are closed then."""
        try:
            store = SqliteStore.open(directory.path, durable=settings.durable)
        except BaseException:
            await gpus.close()
            directory.close()
            raise
        app = cls(directory, store, settings, gpus, launching, warn)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(app._on_loop_exception)
        if settings.sockets:
            app._measure()
        app.executor.meet_again()  # jobs start once it has answered; the socket need not wait
        try:
            for path in settings.sockets:
                await app._listen(path)
            app.offer_metrics(settings.metrics)
        except BaseException:
            await app.close()
            raise
        return app

    async def _listen(self, path: Path) -> None:
        from gpud.control.server import ControlServer  # `gpud run` starts faster without

        server = ControlServer(self, path, policy=self._settings.policy, warn=self._warn)
        await server.start()
        self._servers.append(server)

    def _measure(self) -> None:
        from gpud.daemon.metering import Metering  # `gpud run` starts faster without

        self._metering = Metering(self, self.engine, on_bug=self._on_bug, warn=self._warn)

    def offer_metrics(self, at: str | None) -> None:
        """To scrapers, at this address or path; None: to nobody."""
        if self._metering is not None:
            self._metering.offer(at)

    async def close(self, *, retire_runner: bool = False) -> None:
        """Jobs go on. `retire_runner`: the runner ends once it has nothing left."""
        await self.sources_hosted.close()
        await self.housekeeping.close()
        await self.log_caps.close()
        for server in self._servers:
            await server.close()
        if self._metering is not None:
            await self._metering.close()
        if self._clock is not None:
            self._clock.close()
        self.engine.close()
        await self.gpus.close()
        await self.executor.close(retire=retire_runner)
        self._store.close()
        self._directory.close()

    def rule(self, rules: Rules, windows: Mapping[str, Windows], notes: Sequence[str] = ()) -> None:
        """These rules from now on; `windows`: by the keys of gates, when they are open. `notes`:
        sentences about what has no effect."""
        self._notes = notes
        if rules != self.engine.rules:
            self.engine.change_rules(rules)
        if windows and self._clock is None:
            from gpud.daemon.clock import Clock  # few have any

            self._clock = Clock(self.engine.post)
            self.engine.tell_windows = self._clock.tell_again
        if self._clock is not None:
            self._clock.set(windows)

    def make_source(self, name: str, config: SourceConfig) -> Source:
        """The adapter for a configured source."""
        from gpud.sources.queue_file import QueueFile

        uid, owner = os.geteuid(), None
        if self._settings.policy.system and config.user is not None:
            found = uid_of(config.user)
            if found is None:
                raise GpudError(f"cannot use source {name}: no user {config.user}", kind="config")
            uid = owner = found
        return QueueFile(
            name,
            config,
            self.defaults,
            boot_id=boot_id(),
            uid=uid,
            base_dir=Path.cwd(),
            owner=owner,
            max_priority=None if uid == os.geteuid() else self._settings.policy.max_priority,
            environ={} if owner is not None else None,
        )

    # -- bugs ------------------------------------------------------------------------------------

    def _on_loop_exception(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, object]
    ) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            self._warn("short_of_resources", why=why_os(error))
        elif isinstance(error, BaseException):
            self._on_bug(error)
        else:
            self._warn("loop_problem", message=str(context.get("message")))

    def _on_bug(self, error: BaseException) -> None:
        """A bug ends the process (no job notices; systemd starts it again)."""
        if not self.bug.done() and not self.bug.get_loop().is_closed():
            self.bug.set_exception(error)

    # -- what the control server is given ----------------------------------------------------------

    @property
    def state(self) -> State:
        return self.engine.state

    @property
    def store(self) -> Store:
        return self._store

    async def ask(self, make: Callable[[int], Event], by: By | None = None) -> Answer:
        return await self.engine.ask(make, by)

    def now_ms(self) -> int:
        return self.engine.now_ms()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        return self.engine.subscribe(listener)

    def sources(self) -> list[SourceView]:
        return self.sources_hosted.views()

    async def switch_source(self, name: str, *, stopped: bool, by: By | None = None) -> None:
        known = self.sources_hosted.names()
        if name not in known:
            raise GpudError(
                f'cannot {"stop" if stopped else "start"} source "{name}": no such source',
                kind="not-found",
                hint="sources: " + (", ".join(known) or "none is configured"),
            )
        await (self.sources_hosted.stop if stopped else self.sources_hosted.start)(name, by)

    @property
    def limits(self) -> Limits:
        return self.housekeeping.limits

    async def prune(self, limits: Limits, *, really: bool) -> Pruned:
        return await self.housekeeping.prune(limits, really=really)

    def gpu_note(self) -> str:
        notes = [self.gpus.note, "" if self.gpus.is_blind else unlisted(self.state)]
        return "; ".join(filter(None, notes))

    @property
    def storage_problem(self) -> str:
        return self.engine.storage_problem

    def set_aside_count(self) -> int:
        return len(self.engine.set_aside)

    def metrics(self) -> str:
        assert self._metering is not None  # who asks came through a socket
        return self._metering.text()

    def _watched(self) -> Watched:
        """What the watcher needs to tell our processes from others'."""
        live: dict[int, tuple[int, int]] = {
            attempt.pid: (int(attempt.job), attempt.no)
            for attempt in self.state.attempts.values()
            if attempt.pid
        }
        return Watched(live, self.executor.runner_pids())

    def problems(self) -> list[str]:
        found = []
        if self.state.pool.unknown:
            found.append(f"no GPU is used now: {self.state.pool.unknown}")
        if self.engine.storage_problem:
            found.append(self.engine.storage_problem)
        elif self.state.runner_problem:
            found.append(f"jobs cannot be started now: {self.state.runner_problem}")
        if why := self.engine.disk_full():
            found.append(f"jobs cannot be started now: {why}")
        if (why := self.state.shortage.why) and self.state.shortage.failed:
            found.append(f"the last start failed, and is tried again: {why}")
        if self._metering is not None and self._metering.problem:
            found.append(self._metering.problem)
        found += self._notes
        found += misuses(self.state, self.now_ms())
        found += [
            f"job {job} is set aside: its {event} has crashed gpud three times (gpuctl show {job})"
            for job, event in self.engine.set_aside.items()
        ]
        return found + [f"source {v.name}: {v.problem}" for v in self.sources() if v.problem]

    async def reload(self) -> list[str]:
        if self.reloader is None:
            raise GpudError("cannot reload: gpud runs without a configuration file")
        return list(self.reloader())


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
