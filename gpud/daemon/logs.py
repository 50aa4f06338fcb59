"""What gpud itself says, on stderr: text for a person at a terminal, else one JSON object a line.

Called by daemon/serve.py, once. Event names are constant snake_case, everything else is key-value:
`log.info("reloaded", change="…")`. Values of environments are never logged. Writing never fails:
a full disk or a closed pipe costs words, not the daemon. structlog costs a tenth of a second, so it
is imported by `configure` only, and `gpud run` does without.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from structlog.typing import FilteringBoundLogger, Processor

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Under systemd a line may begin with its syslog priority: `journalctl -p warning` then works.
PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>", "critical": "<2>"}
SECRET_KEYS = frozenset(("env", "environ", "environment", "env_file"))
OTHERS = "library_message"  # of packages that use the standard `logging`


def configure(
    *, level: str = "info", form: str = "auto", stream: IO[str] | None = None
) -> FilteringBoundLogger:
    """Set up all logging of this process, and the logger to use.

    `level` and `form` as in the configuration ([log] level, format).
    """
    import structlog

    out = stream if stream is not None else sys.stderr
    number = LEVELS[level]
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        drop_environment,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    if _shape(form, out) == "text":
        processors += [structlog.dev.ConsoleRenderer(colors=_is_terminal(out), timestamp_key="at")]
    else:
        render = structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
        processors += [
            structlog.processors.format_exc_info,
            _with_priority(render) if is_journal(out) else render,
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=_Unfailing(out)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    _take_over_logging(log, max(number, logging.WARNING))
    return log


def drop_environment(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A processor of structlog: no key of SECRET_KEYS, at any depth, keeps its value."""
    for key, value in event.items():
        event[key] = _censored(key, value)
    return event


def is_journal(stream: IO[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written here goes to the journal (JOURNAL_STREAM of systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _shape(form: str, stream: IO[str]) -> Literal["text", "json"]:
    if form == "auto":
        return "text" if _is_terminal(stream) else "json"
    return "text" if form == "text" else "json"


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _censored(key: object, value: Any) -> Any:
    if isinstance(key, str) and key.lower() in SECRET_KEYS:
        if isinstance(value, dict):
            return sorted(map(str, value))  # names may be seen
        return "(not shown)"
    if isinstance(value, dict):
        return {k: _censored(k, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_censored(None, item) for item in value]
    return value


def _with_priority(render: Processor) -> Processor:
    def process(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        priority = PRIORITIES.get(str(event.get("level")), "<6>")
        return f"{priority}{render(logger, method, event)!s}"

    return process


class _Unfailing:
    """A stream whose writes may get lost and never raise."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Forward(logging.Handler):
    def __init__(self, log: FilteringBoundLogger, level: int) -> None:
        super().__init__(level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # a library's broken format string is not worth a traceback
            text = str(record.msg)
        self._log.log(record.levelno, OTHERS, library=record.name, text=text)


def _take_over_logging(log: FilteringBoundLogger, level: int) -> None:
    """Warnings of watchfiles, gspread and asyncio come in our form too."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward(log, level))
