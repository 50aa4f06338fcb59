"""Names and units as the field has them; docs, alerts and dashboard against what gpud exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gpud
from gpud.core.model import JobState, Outcome, Phase
from gpud.metrics.catalogue import FAMILIES

from .conftest import Metered

ROOT = Path(gpud.__file__).parents[1]
DOCS = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = (ROOT / "monitoring" / "alerts.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())
NAME = re.compile(r"\bgpud_[a-z0-9_]+")
USE = re.compile(r"\b(gpud_[a-z0-9_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')
TARGET = {"job", "instance"}  # labels that Prometheus adds
UNITS = ("seconds", "bytes", "ratio", "celsius", "watts", "joules")
WORDS = {
    "state": {state.value for state in JobState} - {"done"},
    "outcome": {outcome.value for outcome in Outcome},
    "phase": {phase.value for phase in Phase},
}
OF_NAME = {
    name: family
    for family in FAMILIES
    for name in (
        [f"{family.name}_{end}" for end in ("bucket", "count", "sum")]
        if family.kind == "histogram"
        else [family.shown]
    )
}


def test_what_is_exported_is_in_the_catalogue_and_the_other_way_round(daemon: Metered) -> None:
    seen = daemon.seen()
    assert list(seen) == [
        *dict.fromkeys(name for name in seen if name in {f.name for f in FAMILIES})
    ]
    assert set(seen) == {family.name for family in FAMILIES}
    for family in FAMILIES:
        found = seen[family.name]
        assert (found.kind, found.unit, found.help) == (family.kind, family.unit, family.help)
        for _, labels in found.samples:
            assert {name for name, _ in labels} - {"le"} == set(family.labels)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_are_as_the_field_has_them(family: Any) -> None:
    assert re.fullmatch(r"gpud(_[a-z]+)+", family.name)
    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_created"))
    ending = family.name.rpartition("_")[2]
    assert family.unit == (ending if ending in UNITS else "")
    assert family.help.endswith(".")
    assert (family.kind == "histogram") == bool(family.bounds)
    assert list(family.bounds) == sorted(set(family.bounds))


def test_every_metric_is_on_the_page_as_it_is() -> None:
    rows = re.findall(r"^\| `(gpud_\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", DOCS, re.MULTILINE)
    assert rows == [
        (f.shown, f.kind, ", ".join(f"`{label}`" for label in f.labels), f.help) for f in FAMILIES
    ]


def test_the_page_names_no_other_metric() -> None:
    known = {*OF_NAME, *(family.name for family in FAMILIES)}
    assert set(NAME.findall(DOCS)) - known - {"gpud_jobs"} == set()


def rules() -> Iterator[dict[str, str]]:
    """The alerts, as far as this file uses YAML: keys with a plain, quoted or folded value."""
    for block in re.split(r"^ {6}- (?=alert: )", ALERTS, flags=re.MULTILINE)[1:]:
        folded = re.sub(r">-\n((?: {10}.*\n)+)", lambda m: " ".join(m[1].split()) + "\n", block)
        yield dict(re.findall(r"^ *(\w+): (.+)$", folded, re.MULTILINE))


RULES = list(rules())


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']} {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_what_alerts_and_panels_ask_for_exists(where: str, expr: str) -> None:
    used = USE.findall(expr)
    assert used or "up{" in expr
    for name, inside in used:
        assert name in OF_NAME, f"{where} asks for {name}"
        family = OF_NAME[name]
        matchers = MATCHER.findall(inside)
        assert ", ".join(f'{label}{op}"{value}"' for label, op, value in matchers) == inside
        for label, _, value in matchers:
            assert label in {*family.labels, *TARGET}, f"{where}: {name} has no {label}"
            if label in WORDS:
                assert set(value.split("|")) <= WORDS[label], where
    for opening, closing in ("()", "{}", "[]"):
        assert expr.count(opening) == expr.count(closing)
    labels = {"le", *TARGET, *(label for name, _ in used for label in OF_NAME[name].labels)}
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr):
        assert set(group.split(", ")) <= labels, where


def test_counters_are_asked_for_by_their_growth() -> None:
    for where, expr in EXPRESSIONS:
        for name in NAME.findall(expr):
            if OF_NAME[name].kind != "gauge":
                assert re.search(rf"(?:rate|increase)\({name}\b", expr), where


def test_real_parsers_read_both_files() -> None:
    yaml = pytest.importorskip("yaml")
    promql = pytest.importorskip("promql_parser")
    [group] = yaml.safe_load(ALERTS)["groups"]
    assert [(r["alert"], r["expr"]) for r in group["rules"]] == [
        (rule["alert"], rule["expr"]) for rule in RULES
    ]
    for _, expr in EXPRESSIONS:
        if not expr.startswith("label_values"):
            promql.parse(expr.replace("$__rate_interval", "5m"))


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) == ALERTS.count("alert:")
    for rule in RULES:
        assert re.fullmatch(r"Gpud[A-Z]\w+", rule["alert"])
        assert rule["severity"] in ("critical", "warning", "info")
        assert "$labels.instance" in rule["summary"]
        assert rule["description"]
        labels = {label for name in NAME.findall(rule["expr"]) for label in OF_NAME[name].labels}
        told = set(re.findall(r"\$labels\.(\w+)", rule["summary"] + rule["description"]))
        assert told <= labels | TARGET, rule["alert"]


def test_every_alert_is_on_the_page_in_its_order() -> None:
    assert re.findall(r"^\| `(Gpud\w+)` \|", DOCS, re.MULTILINE) == [r["alert"] for r in RULES]


def test_what_alerts_tell_people_to_type_are_verbs() -> None:
    from gpud.ctl.main import MODULE_OF

    told = " ".join(rule["summary"] + " " + rule["description"] for rule in RULES)
    for verb in re.findall(r"gpuctl (\w+)", told + DOCS):
        assert verb in MODULE_OF, verb


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, f"{panel['title']} lies on another"
        assert at["x"] + at["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    assert {v["name"] for v in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}
