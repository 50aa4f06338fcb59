"""From an entry to a `NewJob`: what the entry does not say, its source says, then the defaults.

Owns that merge, the directory and environment of a source's jobs, and the sentence of an entry
that cannot become a job ("cannot run line 12 of gpu.queue: it contains a NUL byte"). All jobs of a
source share one environment object; jobs with the same `env.NAME=` options share one too.

Called by the sources: a `Template` is made once per run, `build` once per entry. Only `template_of`
touches the world (it reads `env_file`); `Template.build` is pure and never fails.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from msgspec import structs

from gpud import environment
from gpud.config.belonging import labels_of
from gpud.config.jobs import spec_of
from gpud.config.requests import (
    asked_of,
    backoff_of,
    request_of,
    retry_on,
    with_likeness,
)
from gpud.config.schema import JobDefaults, QueueFileSource
from gpud.core.model import Array, JobSpec, NewJob, Request, RetryPolicy
from gpud.errors import GpudError, why_os
from gpud.sources import options as entry_options
from gpud.sources.lexer import Entry
from gpud.sources.options import Field, Options
from gpud.sources.trusted import open_trusted

# Options that are fields of a spec, and of its `RetryPolicy`, under the same names.
_AS_THEY_ARE: tuple[Field, ...] = (
    "name",
    "priority",
    "retry_args",
    "time_limit_s",
    "begin_ms",
    "deadline_ms",
    "grace_s",
    "linger_s",
    "checkpoint",
    "held",
    "group",
)
_OF_RETRY: tuple[Field, ...] = ("retries", "backoff", "backoff_max_s", "retry_on")

_OF_REQUEST: tuple[Field, ...] = ("gpus", "vram", "gpu_model", "exclusive")

_KEPT_ENVIRONMENTS = 64
_MAX_ENV_FILE = 1024 * 1024


def clean_environment(environ: Mapping[bytes, bytes]) -> bytes:
    """What jobs inherit of a person's environment, as a spec carries it."""
    return environment.pack(environment.capture(environ))


class Template:
    """The spec of a source's jobs, and `label`, what people call the source's file."""

    def __init__(self, spec: JobSpec, label: str, max_priority: int | None = None) -> None:
        self.spec = spec
        self._max_priority = None if max_priority is None else max(max_priority, spec.priority)
        self.label = label
        self._environments: dict[tuple[tuple[bytes, bytes], ...], bytes] = {}

    def build(self, entry: Entry, key: str) -> NewJob:
        """`key` identifies the entry within its source."""
        base = self.spec
        where = f"{self.label}:{entry.line}"
        problem = self._problem(entry.problem, entry.line) if entry.problem else ""
        if b"\0" in entry.command:
            problem = problem or self._problem("it contains a NUL byte", entry.line)
        chosen: Options | None = None
        if entry.options and not problem:
            try:
                chosen = entry_options.parse(entry.options)
            except GpudError as error:
                problem = self._problem(error.message, entry.line)
        if chosen is None:
            spec = structs.replace(base, command=entry.command, entry_key=key, where=where)
        else:
            try:
                spec = self._with_options(entry.command, key, where, chosen)
            except GpudError as error:
                problem = self._problem(error.message, entry.line)
                spec = structs.replace(base, command=entry.command, entry_key=key, where=where)
        return NewJob(with_likeness(spec), problem)

    def _problem(self, why: str, line: int) -> str:
        return f"cannot run line {line} of {self.label}: {why}"

    def _with_options(self, command: bytes, key: str, where: str, chosen: Options) -> JobSpec:
        base, most = self.spec, self._max_priority
        if most is not None and chosen.get("priority", 0) > most:
            raise GpudError(f"only administrators may give a priority above {most}")
        changes: dict[str, object] = {
            field: chosen[field] for field in _AS_THEY_ARE if field in chosen
        }
        if any(field in chosen for field in _OF_REQUEST):
            changes["request"] = _request(base.request, chosen)
        if "cwd" in chosen:
            changes["cwd"] = os.path.join(base.cwd, chosen["cwd"])
        if any(field in chosen for field in _OF_RETRY):
            changes["retry"] = _retry(base.retry, chosen)
        if "max_fails" in chosen and "array" not in chosen:
            raise GpudError('the option "max-fails" is for an array')
        if "array" in chosen:
            changes["array"] = Array(*chosen["array"], chosen.get("max_fails", 0))
        if "env" in chosen:
            changes["env"] = self._environment(chosen["env"])
        if "labels" in chosen:
            changes["labels"] = labels_of(chosen["labels"], base.labels)
        return structs.replace(base, command=command, entry_key=key, where=where, **changes)

    def _environment(self, extra: dict[bytes, bytes]) -> bytes:
        key = tuple(sorted(extra.items()))
        env = self._environments.get(key)
        if env is None:
            env = merged(self.spec.env, extra)
            if len(self._environments) >= _KEPT_ENVIRONMENTS:
                self._environments.pop(next(iter(self._environments)))
            self._environments[key] = env
        return env


def _request(base: Request, chosen: Options) -> Request:
    gpus, vram, model, exclusive = asked_of(base)
    return request_of(
        chosen.get("gpus", gpus),
        chosen.get("vram", vram),
        chosen.get("gpu_model", model),
        chosen.get("exclusive", exclusive),
    )


def _retry(base: RetryPolicy, chosen: Options) -> RetryPolicy:
    first_s, longest_s = chosen.get("backoff", (None, None))
    policy = backoff_of(base, first_s, chosen.get("backoff_max_s", longest_s))
    policy = structs.replace(policy, retries=chosen.get("retries", base.retries))
    return retry_on(policy, chosen["retry_on"]) if "retry_on" in chosen else policy


_OVERRIDES = (
    "shell",
    "setup",
    "retries",
    "backoff_s",
    "backoff_max_s",
    "retry_args",
    "retry_on",
    "time_limit_s",
    "grace_s",
    "linger_s",
    "checkpoint",
    "group",
)


def template_of(
    name: str,
    config: QueueFileSource,
    defaults: JobDefaults,
    *,
    path: Path,
    base_dir: Path,
    uid: int,
    environ: Mapping[bytes, bytes],
    owner: int | None = None,
    max_priority: int | None = None,
) -> Template:
    """The template of a queue file's jobs. Raises `GpudError` when `env_file` cannot be used;
    `owner` and `max_priority` as in sources/queue_file.py."""
    given = {key: getattr(config, key) for key in _OVERRIDES if getattr(config, key) is not None}
    cwd = path.parent if config.cwd is None else base_dir / os.path.expanduser(config.cwd)
    extra: dict[bytes, bytes] = {}
    if config.env_file is not None:
        extra = read_env_file(base_dir / os.path.expanduser(config.env_file), owner)
    for key, value in config.env.items():
        if not key or "=" in key or "\0" in key + value:
            raise GpudError(f"cannot use env.{key} of source {name}: not a variable", kind="config")
        extra[os.fsencode(key)] = os.fsencode(value)
    given["labels"] = defaults.labels | config.labels
    spec = spec_of(
        structs.replace(defaults, **given),
        source=name,
        cwd=os.fsencode(cwd),
        env=merged(clean_environment(environ), extra),
        uid=uid,
        request=request_of(config.gpus, config.vram, config.gpu_model, config.exclusive),
        priority=config.priority,
    )
    return Template(spec, path.name, max_priority)


def merged(env: bytes, extra: Mapping[bytes, bytes]) -> bytes:
    both = {**environment.unpack(env), **extra}
    return environment.pack(name + b"=" + both[name] for name in sorted(both))


def read_env_file(path: Path, owner: int | None = None) -> dict[bytes, bytes]:
    """`KEY=VALUE` lines; `export ` before and quotes around the value are allowed; `#` comments.

    Nothing is expanded. Raises `GpudError` that names the line.
    """
    try:
        with _open(path, owner) as file:
            text = file.read(_MAX_ENV_FILE + 1)
    except OSError as error:
        raise GpudError(f"cannot read {path}: {why_os(error)}", kind="config") from error
    if len(text) > _MAX_ENV_FILE:
        raise GpudError(f"cannot read {path}: it is longer than 1 MiB", kind="config")
    found: dict[bytes, bytes] = {}
    for number, raw in enumerate(text.split(b"\n"), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        if line.startswith(b"export "):
            line = line[7:].lstrip()
        key, equals, value = line.partition(b"=")
        key, value = key.rstrip(), value.lstrip()
        if not equals or not key or b"\0" in line or len(key.split()) != 1:
            raise GpudError(
                f"cannot use line {number} of {path}: it is not KEY=VALUE", kind="config"
            )
        found[key] = _unquoted(value)
    return found


def _open(path: Path, owner: int | None) -> BinaryIO:
    if owner is None:
        return open(path, "rb")
    opened = open_trusted(os.path.abspath(path), owner)
    if opened.fd < 0:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return open(opened.fd, "rb")


def _unquoted(value: bytes) -> bytes:
    if len(value) >= 2 and value[:1] == value[-1:] and value[:1] in (b"'", b'"'):
        return value[1:-1]
    return value
