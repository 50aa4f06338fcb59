"""The executor: all live runners of a state directory behind one door.

Owns the connections to the runners. Called by the engine (`start`, `stop`, `forget`) and by
daemon/app.py (`open`, `close`). New attempts go to the runner of our version; an older one keeps
what it has and is asked to retire. When a connection is lost, the engine is told, and all are met
again: launched if need be, asked what they have, and only then is there a `RunnerReady`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpud.core.actions import (
    CheckpointAttempt,
    ContinueAttempt,
    PauseAttempt,
    StopAttempt,
)
from gpud.core.events import AttemptNotStarted, Event, KnownAttempt, RunnerGone, RunnerReady
from gpud.core.model import JobId
from gpud.errors import GpudError, why_os
from gpud.executors.accounts import Account, Accounts
from gpud.executors.command import (
    MAX_ARGUMENT_BYTES,
    argv_of,
    attempt_environment,
    environment,
    script_argv,
)
from gpud.executors.delegated import delegated
from gpud.executors.launch import Launching, launch, live_versions, reap, wait_ready
from gpud.executors.link import RunnerLink, connect
from gpud.executors.oom import OutOfMemory
from gpud.executors.transient import Manager, launch_as_unit
from gpud.executors.wire import (
    AnyMessage,
    EnvOp,
    Fact,
    HelloMessage,
    RefusedMessage,
    StartOp,
    UnknownMessage,
    UserOp,
    fact_of,
)
from gpud.paths import log_path
from gpud.ports import Launch, Post
from gpud.protocol.text import to_text
from gpud.runner import KNOWS_PAUSE, VERSION

AboutAttempt = StopAttempt | PauseAttempt | ContinueAttempt | CheckpointAttempt

LOG_DIRECTORY_MODE = 0o711  # in system mode: crossed by all, listed by root
UMASK = 0o022  # of another user's job that was submitted without one
HELLO_TIMEOUT_S = 20.0
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0


class RunnerExecutor:
    """See gpud/ports.py, Executor."""

    def __init__(
        self,
        state_dir: Path,
        token: str,
        post: Post,
        *,
        deliver: Callable[[Sequence[Event]], None] | None = None,
        cgroup: Path | None = None,
        manager: Manager | None = None,
        launching: Launching | None = None,
        accounts: Accounts | None = None,
        warn: Callable[..., None] = lambda event, **values: None,
    ) -> None:
        self._state_dir = state_dir
        self._state_path = str(state_dir)
        self._token = token
        self._post = post
        self._deliver = deliver or self._post_each  # facts, as many as a read brought
        self._cgroup = cgroup
        self._manager = manager
        self._launching = launching
        self._accounts = accounts  # None: everything runs as our own user
        self._warn = warn
        self._oom = OutOfMemory(self._state_path)
        self._links: dict[int, RunnerLink] = {}  # by version
        self._older: dict[tuple[int, int], RunnerLink] = {}  # attempts that are not in ours
        self._base_env: bytes | None = None  # what our version was last told on this connection
        self._hellos: dict[int, asyncio.Future[HelloMessage]] = {}  # while meeting
        self._early: list[Fact] = []  # facts that came while meeting
        self.runner_pid = 0  # of our version; 0: not met yet
        self._launched: set[int] = set()  # pids
        self._meeting: asyncio.Task[None] | None = None
        self._meet_once_more = False
        self._closed = False

    # -- life ------------------------------------------------------------------------------

    async def open(self) -> None:
        """Meet the runners. Raises GpudError when none can be started."""
        await self._meet()

    async def close(self, *, retire: bool = False) -> None:
        """Leave the runners with what they have; `retire`: they end once they have nothing."""
        self._closed = True
        if self._meeting is not None:
            self._meeting.cancel()
            await asyncio.gather(self._meeting, return_exceptions=True)
        for link in self._links.values():
            if retire:
                link.send({"op": "retire"})
            link.close()
        self._links.clear()

    def meet_again(self) -> None:
        """Ask the runners afresh what they have: every unforgotten end is repeated."""
        if self._closed:
            return
        if self._meeting is not None:
            self._meet_once_more = True  # this meeting may have said already what was not heard
            return
        self._meet_once_more = False
        self._meeting = asyncio.ensure_future(self._meet_until_ready())
        self._meeting.add_done_callback(self._met)

    def _met(self, task: asyncio.Task[None]) -> None:
        self._meeting = None
        if not task.cancelled():
            task.result()  # a bug goes on to the loop's handler
        if self._meet_once_more:
            self.meet_again()

    async def _meet_until_ready(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            try:
                await self._meet()
                return
            except GpudError as error:
                self._post(RunnerGone(error.message))
                self._warn("runner_not_ready", why=error.message, again_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _meet(self) -> None:
        for link in self._links.values():
            link.abandon()
        self._links, self._older, self._hellos, self._early = {}, {}, {}, []
        self._base_env = None
        loop = asyncio.get_running_loop()
        versions = live_versions(self._state_dir)
        launching, self._launching = self._launching, None
        if launching is not None:
            self._launched.add(await asyncio.to_thread(wait_ready, launching))
        elif VERSION not in versions:
            await self._launch()
        if VERSION not in versions:
            versions.insert(0, VERSION)
        try:
            for version in versions:
                self._hellos[version] = loop.create_future()
                self._links[version] = await connect(
                    self._state_dir, version, self._token, self._on_messages, self._on_lost
                )
            hellos = await asyncio.wait_for(
                asyncio.gather(*self._hellos.values()), timeout=HELLO_TIMEOUT_S
            )
        except TimeoutError as error:
            raise GpudError("cannot reach the runner: it does not answer") from error
        except OSError as error:
            raise GpudError(f"cannot reach the runner: {why_os(error)}") from error
        finally:
            for waiting in self._hellos.values():
                waiting.cancel()  # of one that failed, the others' answers are not waited for
        self._hellos = {}
        known: list[KnownAttempt] = []
        for hello in hellos:
            known += hello.known(older=hello.runner < KNOWS_PAUSE)
            older = self._links.get(hello.runner)
            if hello.runner != VERSION and older is not None:  # None: it has just ended
                self._older.update({(k.job, k.attempt): older for k in hello.attempts})
                older.send({"op": "retire"})
                older.flush()
        if VERSION not in self._links:
            raise GpudError("cannot reach the runner: it hung up")
        ours = next(h for h in hellos if h.runner == VERSION)
        self.runner_pid = ours.pid
        self._post(RunnerReady(ours.boot_id, tuple(known)))
        early, self._early = self._early, []
        self._post_each(early)

    async def _launch(self) -> None:
        """As a service where systemd runs us; else, or where it does not let us, as our child."""
        if self._manager is not None:
            try:
                await asyncio.to_thread(
                    launch_as_unit, self._manager, self._state_dir, self._cgroup
                )
                return
            except GpudError as error:
                unit, self._manager = self._manager.unit, None
                self._cgroup = self._cgroup or delegated()
                self._warn(
                    "jobs_in_our_own_unit",
                    why=error.message,
                    so=f"jobs end when {unit} is stopped, unless it has KillMode=process",
                )
        self._launched.add(await asyncio.to_thread(launch, self._state_dir, self._cgroup))

    # -- what comes from a runner ------------------------------------------------------------

    def _on_messages(self, link: RunnerLink, messages: Sequence[AnyMessage]) -> None:
        if self._links.get(link.version) is not link and link.version not in self._hellos:
            return  # a connection that we have given up
        facts: list[Fact] = []
        for message in messages:
            if (fact := fact_of(message, self._oom.of(message))) is not None:
                facts.append(fact)
            elif isinstance(message, HelloMessage):
                waiting = self._hellos.get(link.version)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            elif isinstance(message, RefusedMessage | UnknownMessage):
                self._warn("runner_refused", message=str(message))
        if self._hellos:
            self._early += facts
        elif facts:
            self._deliver(facts)

    def _post_each(self, events: Sequence[Event]) -> None:
        for event in events:
            self._post(event)

    def _on_lost(self, link: RunnerLink) -> None:
        waiting = self._hellos.get(link.version)
        if waiting is not None and not waiting.done():
            waiting.set_exception(GpudError("cannot reach the runner: it hung up"))
        if self._closed or self._links.get(link.version) is not link:
            return
        del self._links[link.version]
        reap(self._launched)
        if link.version != VERSION and link.version not in live_versions(self._state_dir):
            return  # an older one has finished what it had
        if not self._hellos:
            self._post(RunnerGone("the connection to the runner was lost"))
            self.meet_again()

    # -- the port ------------------------------------------------------------------------------

    def start(self, launch: Launch) -> None:
        job, attempt, spec = launch.action.job, launch.action.attempt, launch.spec
        link = self._older.get((job, attempt)) or self._links.get(VERSION)
        if link is None:
            return  # `RunnerReady` will tell that it did not arrive
        try:
            account = self._account(spec.uid)
        except GpudError as error:
            self._post(AttemptNotStarted(job, attempt, _now_ms(), "user", error.message))
            return
        argv = argv_of(spec, attempt)
        if spec.argv is None and len(argv[-1]) > MAX_ARGUMENT_BYTES:
            try:
                argv = script_argv(spec, self._write_script(job, attempt, argv[-1], account))
            except OSError as error:  # so it was never sent: the script is written before
                why = f"cannot write the script of a command this long: {why_os(error)}"
                self._post(AttemptNotStarted(job, attempt, _now_ms(), "command", why))
                return
        if VERSION in self._links and spec.env != self._base_env:
            # jobs of one submission share theirs: sent once
            self._base_env = spec.env
            self._send(VERSION, EnvOp(vars=environment(spec)))
        env = attempt_environment(spec, job, attempt, launch.devices, resume=launch.action.resume)
        user, umask, log_gid = None, spec.umask, None
        if account is not None:
            user = UserOp(account.uid, account.gid, account.groups)
            env += map(to_text, account.defaults(spec.env))
            umask = UMASK if umask is None else umask
            log_gid = self._accounts.log_gid if self._accounts is not None else None
        if self._accounts is not None:
            self._make_log_directory(job, attempt)
        link.send(
            StartOp(
                job=job,
                attempt=attempt,
                argv=list(map(to_text, argv)),
                cwd=to_text(spec.cwd),
                env=env,
                log=to_text(os.fsencode(log_path(self._state_path, job, attempt))),
                grace_s=spec.grace_s,
                linger_s=spec.linger_s,
                time_limit_s=spec.time_limit_s,
                umask=umask,
                user=user,
                log_gid=log_gid,
            ),
        )

    def stop(self, action: StopAttempt) -> None:
        self._ask("stop", action, grace_s=action.grace_s)

    def pause(self, action: PauseAttempt) -> None:
        self._ask("pause", action)

    def unpause(self, action: ContinueAttempt) -> None:
        self._ask("continue", action)

    def checkpoint(self, action: CheckpointAttempt) -> None:
        link = self._link_of(action)
        if link is not None and link.version < KNOWS_PAUSE:  # TERM is all that it can be told
            self._ask("stop", action, grace_s=action.grace_s)
        else:
            self._ask("checkpoint", action, signal=action.signal, grace_s=action.grace_s)

    def _ask(self, op: str, action: AboutAttempt, **more: float) -> None:
        """The runner that has the attempt; not about what it does not know."""
        link = self._link_of(action)
        if link is not None and (op == "stop" or link.version >= KNOWS_PAUSE):
            link.send({"op": op, "job": action.job, "attempt": action.attempt, **more})

    def _link_of(self, action: AboutAttempt) -> RunnerLink | None:
        return self._older.get((action.job, action.attempt)) or self._links.get(VERSION)

    def forget(self, attempts: Sequence[tuple[JobId, int]]) -> None:
        ours: list[tuple[int, int]] = []
        for key in attempts:
            older = self._older.pop(key, None)
            if older is not None:
                older.send({"op": "forget", "attempts": [key]})
            else:
                ours.append(key)
        if ours:
            self._send(VERSION, {"op": "forget", "attempts": ours})

    def runner_pids(self) -> tuple[int, ...]:
        """Of those that we are connected to: the ancestors of everything that runs."""
        return tuple(link.peer_pid for link in self._links.values())

    def flush(self) -> None:
        for link in self._links.values():
            link.flush()

    def _send(self, version: int, message: object) -> None:
        """To nobody while there is no connection: `RunnerReady` will tell what did not arrive."""
        link = self._links.get(version)
        if link is not None:
            link.send(message)

    def _account(self, uid: int) -> Account | None:
        """Whom it runs as; None: as we do. Raises GpudError with a clause."""
        own = os.geteuid()
        if self._accounts is not None:
            return None if uid == own else self._accounts.of(uid)
        if own == 0 and uid != 0:  # of a time in system mode: never with root's rights
            raise GpudError(f'it is a job of user {uid}, and access.mode is not "system" any more')
        return None

    def _make_log_directory(self, job: int, attempt: int) -> None:
        """One that users may cross; what is wrong with it the runner says."""
        directory = os.path.dirname(log_path(self._state_path, job, attempt))
        with contextlib.suppress(FileNotFoundError):
            if os.stat(directory).st_mode & 0o777 == LOG_DIRECTORY_MODE:
                return
        with contextlib.suppress(OSError):
            for path in (os.path.dirname(directory), directory):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path)
                os.chmod(path, LOG_DIRECTORY_MODE)

    def _write_script(
        self, job: int, attempt: int, text: bytes, account: Account | None = None
    ) -> bytes:
        """A command too long for an argument, as a file beside the log."""
        path = Path(log_path(self._state_path, job, attempt)).with_suffix(".sh")
        if path.exists():
            return os.fsencode(path)  # sent before: a shell may be reading it
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(text)
            if account is not None:
                os.fchown(fd, account.uid, account.gid)
        draft.rename(path)
        return os.fsencode(path)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
