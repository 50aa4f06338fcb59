"""A strict reader of OpenMetrics text: it raises where a scraper might only shrug.

Written from the specification (OpenMetrics 1.0), by no means from gpud/metrics/text.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,(?=.)|\Z)')
VALUE = re.compile(r"[+-]?(?:Inf|NaN|\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
SUFFIXES = {"gauge": {""}, "counter": {"_total"}, "histogram": {"_bucket", "_count", "_sum"}}
UNESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}

Labels = tuple[tuple[str, str], ...]


@dataclass
class Found:
    kind: str
    unit: str = ""
    help: str = ""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, suffix: str = "", **labels: str) -> float:
        """Of the sample with exactly these labels."""
        return self.samples[suffix, tuple(sorted(labels.items()))]


def parse(text: str) -> dict[str, Found]:
    assert text.endswith("\n# EOF\n"), "the end is missing"
    families: dict[str, Found] = {}
    name, said = "", set()
    for line in text[: -len("\n# EOF\n")].split("\n"):
        assert line not in ("", "# EOF"), "an end before the end"
        assert line == line.strip(), line
        if line.startswith("#"):
            _, what, about, rest = line.split(" ", 3)
            assert what in ("TYPE", "UNIT", "HELP"), line
            if about != name:
                assert what == "TYPE", line
                assert about not in families, f"{about} stands in two places"
                name, said = about, set()
                families[name] = Found(rest)
                assert rest in SUFFIXES, line
            assert what not in said, line
            assert not families[name].samples, line
            said.add(what)
            if what == "UNIT":
                assert name.endswith(f"_{rest}"), f"the name of {name} does not end in its unit"
                families[name].unit = rest
            elif what == "HELP":
                families[name].help = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        full, inside, value = match.groups()
        assert full.startswith(name), line
        suffix = full.removeprefix(name)
        assert suffix in SUFFIXES[families[name].kind], line
        assert VALUE.fullmatch(value), line
        labels = _labels(inside) if inside is not None else ()
        assert (suffix, labels) not in families[name].samples, f"{line} is there twice"
        families[name].samples[suffix, labels] = float(value)
    for found in families.values():
        if found.kind == "histogram":
            _check_histogram(found)
        if found.kind != "gauge":
            assert all(value >= 0 for value in found.samples.values())
    return families


def _labels(text: str) -> Labels:
    found, at = [], 0
    while at < len(text):
        match = LABEL.match(text, at)
        assert match is not None, text[at:]
        found.append((match[1], re.sub(r"\\.", lambda m: UNESCAPED[m[0]], match[2])))
        at = match.end()
    assert found, "empty braces"
    assert len(dict(found)) == len(found), text
    return tuple(sorted(found))


def _check_histogram(found: Found) -> None:
    buckets = [(dict(at)["le"], n) for (kind, at), n in found.samples.items() if kind == "_bucket"]
    assert buckets[-1] == ("+Inf", found.value("_count"))
    bounds = [float(le) for le, _ in buckets]
    assert bounds == sorted(set(bounds))
    assert all("." in le or "e" in le for le, _ in buckets[:-1]), "bounds are floats"
    counts = [n for _, n in buckets]
    assert counts == sorted(counts)
    assert ("_sum", ()) in found.samples
