"""The source `queue-file`: jobs are lines appended to a file.

Owns when to look: when the watch rings (local file systems), every `poll_s` on network file
systems and wherever watching does not work, every `LOCAL_POLL_S` in any case, and with growing
pauses while something is wrong. Made by the engine, one for each configured source; `run` is its
task. Not its business: what a look does (reader.py), what a change means (tracker.py), what an
entry is (lexer.py).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gpud import filesystem
from gpud.config.schema import JobDefaults, QueueFileSource
from gpud.errors import GpudError
from gpud.ports import SourceHealth, SourceHost
from gpud.sources.aside import patiently
from gpud.sources.build import Template, template_of
from gpud.sources.lexer import LIMITS, Limits
from gpud.sources.reader import Reader
from gpud.sources.settling import Timing
from gpud.sources.watch import Watch

LOCAL_POLL_S = 30.0  # a watch may miss something, but not for long
FIRST_PAUSE_S = 0.5
LAST_PAUSE_S = 5.0
_MIN_POLL_S = 0.01

TIMING = Timing()


class QueueFile:
    """`base_dir`: what relative paths of the configuration are relative to. `uid`: whose jobs.
    `owner`: the one user beside root who may have a say in the file; None: nobody looks.
    `max_priority`: more than that, or than the configuration says, no line can ask for."""

    kind = "queue-file"

    def __init__(
        self,
        name: str,
        config: QueueFileSource,
        defaults: JobDefaults,
        *,
        boot_id: str,
        uid: int,
        base_dir: Path,
        environ: Mapping[bytes, bytes] | None = None,
        owner: int | None = None,
        max_priority: int | None = None,
        watch: bool = True,
        clock: Callable[[], float] = time.monotonic,
        timing: Timing = TIMING,
        limits: Limits = LIMITS,
    ) -> None:
        self.name = name
        self._config = config
        self._defaults = defaults
        self._boot_id = boot_id
        self._uid = uid
        self._owner = owner
        self._max_priority = max_priority
        self._base_dir = Path(os.path.abspath(base_dir))
        self.path = self._base_dir / os.path.expanduser(config.path)
        self._environ = dict(os.environb if environ is None else environ)
        self._watching = watch
        self._clock = clock
        self._timing = timing
        self._limits = limits
        self._host: SourceHost | None = None
        self._filesystem: str | None = None
        self._last_read_at_ms = 0

    async def run(self, host: SourceHost) -> None:
        """Until cancelled; see `ports.Source`."""
        loop = asyncio.get_running_loop()
        bell = asyncio.Event()
        self._host = host
        reader: Reader | None = None
        watch: Watch | None = None
        pause_s = FIRST_PAUSE_S
        try:
            while True:
                bell.clear()
                try:
                    if reader is None:
                        reader = await self.reader(host)
                    watch = self._keep_watching(watch, lambda: loop.call_soon_threadsafe(bell.set))
                    due_s = await reader.look()
                except GpudError as error:
                    self._report(reader, error.message, watch)
                    wait_s, pause_s = pause_s, min(2 * pause_s, LAST_PAUSE_S)
                else:
                    self._last_read_at_ms = time.time_ns() // 1_000_000
                    self._report(reader, "", watch)
                    pause_s = FIRST_PAUSE_S
                    wait_s = self._poll_s(watch)
                    if due_s is not None:
                        wait_s = min(wait_s, max(due_s, _MIN_POLL_S))
                try:
                    async with asyncio.timeout(wait_s):
                        await bell.wait()
                except TimeoutError:
                    pass
        finally:
            if watch is not None:
                watch.stop()

    async def reader(self, host: SourceHost) -> Reader:
        """What reads the file from where the host's position says. Raises `GpudError`."""
        self._host = host
        path = os.fspath(self.path)

        def prepare() -> tuple[str, Template]:
            template = template_of(
                self.name,
                self._config,
                self._defaults,
                path=self.path,
                base_dir=self._base_dir,
                uid=self._uid,
                environ=self._environ,
                owner=self._owner,
                max_priority=self._max_priority,
            )
            return filesystem.type_of(path), template

        self._filesystem, template = await patiently(prepare, self._timing.answer_s, self._slow)
        return Reader(
            path,
            template,
            host,
            boot_id=self._boot_id,
            start_at_end=self._config.start == "end",
            local=self._is_local(),
            clock=self._clock,
            slow=self._slow,
            timing=self._timing,
            limits=self._limits,
            owner=self._owner,
        )

    def _is_local(self) -> bool:
        return self._filesystem is not None and not filesystem.may_be_remote(self._filesystem)

    def _keep_watching(self, watch: Watch | None, ring: Callable[[], object]) -> Watch | None:
        """The watch, or another one after its directory was replaced or came back."""
        if not self._watching or not self._is_local():
            return None
        if watch is not None:
            if watch.is_current():
                return watch
            watch.stop()
        return Watch(os.fspath(self.path), ring)

    def _poll_s(self, watch: Watch | None) -> float:
        if watch is not None and not watch.why:
            return LOCAL_POLL_S
        return max(self._config.poll_s, _MIN_POLL_S)

    def _slow(self) -> None:
        waited = f"{self._timing.answer_s:g} s"
        self._report(None, f"cannot read {self.path}: no answer for {waited}; still waiting")

    def _report(self, reader: Reader | None, problem: str, watch: Watch | None = None) -> None:
        notes = [reader.note] if reader is not None and reader.note else []
        if self._filesystem and not self._is_local():
            notes.append(
                f"on a network file system ({self._filesystem}), looked at every "
                f"{self._config.poll_s:g} s: only one host may append to it"
            )
        elif watch is not None and watch.why and not problem:
            notes.append(f"{watch.why}; looked at every {self._config.poll_s:g} s")
        if self._host is not None:
            self._host.report(SourceHealth(problem, "; ".join(notes), self._last_read_at_ms))
