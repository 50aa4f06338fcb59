"""Settings that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpud.config.load import ConfigError, parse

CPU = "a job for the CPU (gpus 0) cannot ask for memory, model or all of a GPU"
NOTHING = 'cannot use "0G" as an amount of memory: it must be more than nothing'
SOURCE = '[source.a]\ntype = "queue-file"\npath = "q"\n'


def said(text: str) -> list[str]:
    """The problems of a text."""
    try:
        parse(text, name="gpud.toml", directory=Path("/etc/gpud"))
    except ConfigError as error:
        return error.problems
    return []


def test_two_sources_on_one_file_would_run_each_line_twice() -> None:
    text = '[source.a]\ntype="queue-file"\npath="q"\n[source.b]\ntype="queue-file"\npath="./q"\n'
    assert said(text) == [
        "gpud.toml:6: source.b reads /etc/gpud/q, and so does source.a: each line would run twice"
    ]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('vram = "1G"\ngpus = 0', f"gpud.toml:4: source.a.vram: {CPU}"),
        (
            "gpus = 0.3\nexclusive = true",
            "gpud.toml:5: source.a.exclusive: a share of a GPU cannot be exclusive",
        ),
        ('gpu_model = "A100"\ngpus = 0', f"gpud.toml:4: source.a.gpu_model: {CPU}"),
        ('vram = "999999T"', "gpud.toml:4: source.a.vram: no GPU has that much memory"),
        ("gpus = 0.0001", "gpud.toml:4: source.a.gpus cannot be 0.0001: a share is at least 0.001"),
        (
            f'gpu_model = "{"x" * 101}"',
            "gpud.toml:4: source.a.gpu_model may have 100 characters at most",
        ),
    ],
)
def test_what_a_source_cannot_ask_for(lines: str, sentence: str) -> None:
    assert said(SOURCE + lines) == [sentence]


@pytest.mark.parametrize(
    "lines", ['vram = "12G"\ngpus = 2', "gpus = 0.3", "gpus = 0", 'vram = "auto"', "vram = 0"]
)
def test_what_a_source_can_ask_for(lines: str) -> None:
    assert said(SOURCE + lines) == []


@pytest.mark.parametrize("table", ["[pool]\nmemory", "[pool]\ntolerance", f"{SOURCE}vram"])
def test_no_memory_is_zero_however_it_is_written(table: str) -> None:
    assert said(f"{table} = 0") == said(f'{table} = "0"') == []
    (found,) = said(f'{table} = "0G"')
    assert NOTHING in found


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        (
            "idle_after_s = 0\nstop_idle = true",
            ["gpud.toml:3: pool.stop_idle needs a pool.idle_after_s of more than 0"],
        ),
        ("idle_after_s = 0", []),
        ("stop_idle = true", []),
        (
            'idle_after_s = "500ms"',
            [
                "gpud.toml:2: pool.idle_after_s must be 0 (never) or at least 1 second, not 0.5",
            ],
        ),
        ("idle_after_s = 1\nstop_idle = true", []),
    ],
)
def test_idle_jobs(lines: str, problems: list[str]) -> None:
    assert said(f"[pool]\n{lines}") == problems
