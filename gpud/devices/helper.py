"""Our end of a GPU helper process: starting it, its lines, and getting rid of it.

Owned by devices/driver.py. Decides nothing: messages go up as they come. Never waits for a process
that was killed: a driver may hold it in the kernel (state D), where it cannot die.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

import gpud
from gpud.devices.wire import Answer, Broke, Message, decode_answer, encode
from gpud.errors import GpudError, why_os

# The helper is imported from where we are: -m puts its directory first.
ROOT = Path(gpud.__file__).parent.parent
COMMAND = (sys.executable, "-m", "gpud.devices.child")
DEATH_WAIT_S = 0.2  # a killed process dies within milliseconds, if the driver lets it


class Helper(asyncio.Protocol):
    """`receive` gives its answers one by one; `broke` is called whenever it hears of an Xid."""

    def __init__(self, broke: Callable[[Broke], None]) -> None:
        self._broke = broke
        self._answers: asyncio.Queue[Answer | None] = asyncio.Queue()  # None: it is over
        self._rest = b""
        self._output: asyncio.BaseTransport | None = None
        self._input: asyncio.WriteTransport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._over = False
        self._dead = asyncio.Event()

    @classmethod
    async def start(cls, broke: Callable[[Broke], None]) -> Helper:
        """Raises GpudError when no process can be made."""
        helper = cls(broke)
        loop = asyncio.get_running_loop()
        try:
            process = helper._process = _spawn()
            helper._pidfd = os.pidfd_open(process.pid)
            loop.add_reader(helper._pidfd, helper._reap)
            # Its input first: what it says may make us kill it.
            to_it, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
            helper._input = to_it
            await loop.connect_read_pipe(lambda: helper, process.stdout)
        except OSError as error:
            helper.kill()
            helper.abandon()
            raise GpudError(f"cannot start the GPU helper: {why_os(error)}") from error
        except BaseException:
            helper.kill()
            if not await helper.dead(DEATH_WAIT_S):
                helper.abandon()
            raise
        return helper

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def is_over(self) -> bool:
        """It will say nothing more."""
        return self._over

    @property
    def is_dead(self) -> bool:
        return self._dead.is_set()

    def send(self, message: Message) -> None:
        if self._input is not None and not self._input.is_closing():
            self._input.write(encode(message) + b"\n")

    async def receive(self) -> Answer | None:
        """The next answer; None: it is gone, or talks nonsense."""
        answer = await self._answers.get()
        if answer is None:
            self._answers.put_nowait(None)
        return answer

    def kill(self) -> None:
        """It says nothing more, and is reaped when it dies."""
        self._broke = lambda message: None
        self._end()
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        if self._output is not None:
            self._output.close()
        elif process.stdout is not None:
            process.stdout.close()  # no transport has come to own it
        if self._input is None:
            if process.stdin is not None:
                process.stdin.close()
        elif not self._input.is_closing():
            self._input.abort()  # what it has not read is not waited for

    async def dead(self, limit_s: float) -> bool:
        """Whether it has died within this time."""
        try:
            async with asyncio.timeout(limit_s):
                await self._dead.wait()
        except TimeoutError:
            return False
        return True

    def abandon(self) -> None:
        """Forget one that does not die: whoever reaps our orphans reaps it."""
        if self._process is not None and self._process.returncode is None:
            self._forget_pidfd()
            self._process.returncode = -signal.SIGKILL

    def how_it_ended(self) -> str:
        """A clause."""
        status = self._process.returncode if self._process else None
        if status is not None and status < 0:
            return f"crashed ({signal.Signals(-status).name})"
        return "ended without a word"

    def _end(self) -> None:
        self._over = True
        self._answers.put_nowait(None)

    def _reap(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._forget_pidfd()
            self._dead.set()

    def _forget_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._output = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                answer = decode_answer(line)
            except msgspec.DecodeError:
                self.kill()
                return
            if isinstance(answer, Broke):
                self._broke(answer)
            else:
                self._answers.put_nowait(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()


def _spawn() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        bufsize=0,
        start_new_session=True,  # Ctrl-C at our terminal is not for it
    )
