"""What types cannot say: settings that contradict each other, and names that mean nothing.

Called by config/load.py once the document is a `Config`. Each finding is the path of a key and one
sentence. Looks at paths on the disk only to see whether two are one file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from gpud.config import gpu_words
from gpud.config.belonging import labels_of, uid_of
from gpud.config.lines import dotted
from gpud.config.requests import request_of
from gpud.config.schema import Config, Pool, SourceConfig
from gpud.config.windows import read_windows
from gpud.errors import GpudError

Finding = tuple[tuple[str, ...], str]

# Of a request that contradicts itself: the first of these that was asked for is to blame.
OF_A_REQUEST = ("exclusive", "vram", "gpu_model", "gpus")


def findings(config: Config) -> Iterator[Finding]:
    yield from _of_pool(config.pool)
    for name, text in config.windows.items():
        yield from _of_window(("windows", name), text)
    for path, text in windows_used(config):
        if text not in config.windows:
            yield from _of_window(path, text, config.windows)
    yield from _of_labels(("defaults", "labels"), config.defaults.labels)
    readers: dict[str, str] = {}
    for name, source in config.source.items():
        yield from _of_request(name, source)
        labels = config.defaults.labels | source.labels
        yield from _of_labels(("source", name, "labels"), labels)
        if why := _of_user(config, source):
            yield ("source", name, "user"), f"source.{name}.user: {why}"
        real = os.path.realpath(source.path)
        if real in readers:
            both = f"source.{name} reads {source.path}, and so does source.{readers[real]}"
            yield ("source", name, "path"), f"{both}: each line would run twice"
        readers.setdefault(real, name)


def _of_user(config: Config, source: SourceConfig) -> str:
    if config.access.mode == "private":
        return "" if source.user is None else 'it takes [access] mode = "system"'
    if source.user is None:
        return 'write down as whom its jobs run, since [access] has mode = "system"'
    return f"this machine knows no user {source.user}" if uid_of(source.user) is None else ""


def windows_used(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where a window is named or written, and as what."""
    for table in ("groups", "users", "labels", "source"):
        for name, settings in getattr(config, table).items():
            if settings.window is not None:
                yield (table, name, "window"), settings.window
    for name, text in config.pool.windows.items():
        yield ("pool", "windows", name), text


def _of_window(path: tuple[str, ...], text: str, known: Iterable[str] = ()) -> Iterator[Finding]:
    try:
        read_windows(text)
    except GpudError as error:
        why = error.message
        if known and re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", text):
            near = difflib.get_close_matches(text, known, 1)
            meant = near[0] if near else f"there are {', '.join(known)}"
            why = f'[windows] has no "{text}": '
            why += f"did you mean {meant}?" if near else meant
        yield path, f"{dotted(path)}: {why}"


def _of_labels(path: tuple[str, ...], labels: Mapping[str, str]) -> Iterator[Finding]:
    try:
        labels_of(labels)
    except GpudError as error:
        yield path, f"{dotted(path)}: {error.message}"


def _of_pool(pool: Pool) -> Iterator[Finding]:
    if pool.gpus:
        try:
            gpu_words.from_config(pool.gpus)
        except GpudError as error:
            yield ("pool", "gpus"), error.message
    if pool.stop_idle and not pool.idle_after_s:
        yield ("pool", "stop_idle"), "pool.stop_idle needs a pool.idle_after_s of more than 0"
    if 0 < pool.idle_after_s < 1:
        yield (
            ("pool", "idle_after_s"),
            f"pool.idle_after_s must be 0 (never) or at least 1 second, not {pool.idle_after_s:g}",
        )


def _of_request(name: str, source: SourceConfig) -> Iterator[Finding]:
    try:
        request_of(source.gpus, source.vram, source.gpu_model, source.exclusive)
    except GpudError as error:
        named, _, why = error.message.partition(": ")
        if named not in OF_A_REQUEST:
            named = next(key for key in OF_A_REQUEST if getattr(source, key))
            why = error.message
        yield ("source", name, named), f"source.{name}.{named}: {why}"
