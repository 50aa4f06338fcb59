"""The command: choose figures, measure them one after another, print the table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import clients, deciding, foretelling, idle, latency, polling, queued, simulated, throughput
from .limits import LIMITS
from .measure import FULL, QUICK, SMOKE, Bench, Effort, Measured
from .place import workplace
from .table import as_json, as_table

GROUPS: dict[str, Callable[[Bench], Iterator[Measured]]] = {
    "daemon": throughput.daemon,
    "run": throughput.run,
    "gap": latency.start_to_start,
    "first": latency.first_instruction,
    "submit": clients.submit,
    "bulk": queued.bulk,
    "array": queued.array,
    "restart": queued.restart,
    "ls": clients.ls,
    "idle": idle.idle,
    "polling": polling.polling,
    "growth": queued.growth,
    "dispatch": deciding.dispatch,
    "queue": deciding.queue,
    "kinds": deciding.kinds,
    "forecast": foretelling.forecast,
    "simulate": simulated.decisions,
    "utilisation": simulated.utilisation,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if unknown := [figure for figure in options.figures if figure not in GROUPS]:
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    figures: list[Measured] = []
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users do not compile gpud at each start
    with workplace(options.dir) as place:
        bench = Bench(place, _effort(options))
        for group in options.figures or GROUPS:
            print(f"measuring {group} …", file=sys.stderr, flush=True)
            figures.extend(GROUPS[group](bench))
    print(as_table(figures))
    if options.json:
        document = as_json(figures, bench.effort)
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    missed = [f for f in figures if not f.skipped and not LIMITS[f.key].met_by(f.value)]
    return 1 if options.check and missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure gpud against its limits and peers."
    )
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(GROUPS)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, more noise")
    parser.add_argument("--smoke", action="store_true", help="the least; its times mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--dir", metavar="DIR", help="where to work: on a local disk")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a limit is missed")
    return parser


def _effort(options: argparse.Namespace) -> Effort:
    return SMOKE if options.smoke else QUICK if options.quick else FULL


if __name__ == "__main__":
    sys.exit(main())
