"""`gpud check`: what is wrong with a configuration file, all of it at once.

Called by gpud/main.py. Looks at the file alone, not at the machine: that is `gpud doctor`'s.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpud.config import gpu_words
from gpud.config.load import ConfigError, default_path, load
from gpud.config.schema import Config
from gpud.errors import EXIT_CONFIG
from gpud.tools.output import say

EXAMPLES = """\
examples:
  gpud check --config gpud.toml && systemctl reload gpud
  gpud check                      # the file that gpud serve would read
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gpud check",
        description="Say what is wrong with a configuration file: one line for each problem.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="PATH", help="default: as gpud serve")
    path: Path | None = parser.parse_args(argv).config or default_path()
    if path is None:
        return say("no configuration file: fine: gpud serve runs on its defaults", "gpud check")
    try:
        config = load(path)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return EXIT_CONFIG
    return say(f"{path}: fine: {summary(config)}", "gpud check")


def summary(config: Config) -> str:
    """ "2 GPUs, 1 source"."""
    gpus = "every GPU"
    if config.pool.gpus:
        devices = gpu_words.from_config(config.pool.gpus)
        gpus = _count(len({one for device in devices for one in device.ids}), "GPU")
    return f"{gpus}, {_count(len(config.source), 'source')}"


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number in (0, 1) else 's'}"
