"""`gpud doctor`: what this machine offers gpud, and what to do about each problem.

Called by gpud/main.py. Owns the list of probes and how findings are shown. It changes nothing, and
is done within seconds whatever hangs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from gpud.config.load import ConfigError, default_path, load
from gpud.config.schema import Config
from gpud.errors import EXIT_REFUSED
from gpud.tools import probe_daemon, probe_gpus, probe_machine
from gpud.tools.findings import Finding, Probe, Situation, run
from gpud.tools.output import say

LIMIT_S = 5.0
PROBES: tuple[Probe, ...] = (
    probe_machine.python,
    probe_machine.sqlite,
    probe_machine.kernel,
    probe_daemon.configuration,
    probe_daemon.state_directory,
    probe_daemon.daemon,
    probe_daemon.runner,
    probe_daemon.cgroup,
    probe_gpus.gpus,
    probe_daemon.sources,
    probe_machine.shell,
    probe_machine.limits,
    probe_machine.lingering,
    probe_machine.clock,
)
EXAMPLES = """\
examples:
  gpud doctor
  gpud doctor --config gpud.toml --json | jq '.findings[] | select(.level == "problem")'

exit status: 0, or 1 where there is a problem; notes are none.
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gpud doctor",
        description="Look at this machine as gpud would, and say what to mend.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="PATH", help="default: as gpud serve")
    parser.add_argument("--json", action="store_true", help="the findings as one JSON object")
    options = parser.parse_args(argv)
    findings = list(run(PROBES, situation_of(options.config or default_path()), LIMIT_S))
    healthy = all(finding.level != "problem" for finding in findings)
    if options.json:
        shown = [finding._asdict() for finding in findings]
        text = json.dumps({"ok": healthy, "findings": shown}, indent=1, ensure_ascii=False)
    else:
        text = "\n".join(as_text(findings))
    status = say(text, "gpud doctor")
    return status if healthy else EXIT_REFUSED


def situation_of(path: Path | None) -> Situation:
    """A configuration that cannot be used is a problem of its own; the rest is looked at too."""
    if path is None:
        return Situation(Config(), None, ())
    try:
        return Situation(load(path), path, ())
    except ConfigError as error:
        return Situation(Config(), path, error.problems)


def as_text(findings: Sequence[Finding]) -> list[str]:
    """Aligned; what to do stands below what was found."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for level, subject, text, do in findings:
        lines.append(f"{level:<8} {subject:<{width}}  {text}")
        if do and level != "ok":
            lines.append(f"{'':<8} {'':<{width}}    {do}")
    return lines
