"""The dashboard and the alert rules of `deploy/monitoring` name only metrics and labels that are exported."""

import json
import re
from pathlib import Path

import pytest
import yaml

from taxi_platform.ui.health import PARTS
from taxi_platform.ui.metric_months import STATES
from taxi_platform.ui.metric_names import METRICS

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "taxi-dashboard.json").read_text("utf-8"))
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "taxi-rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
PANEL_EXPRESSIONS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [(rule["alert"], rule["expr"]) for rule in RULES] + PANEL_EXPRESSIONS
LABELS = {metric.name: {*metric.labels, "job", "instance"} for metric in METRICS} | {"up": {"job", "instance"}}
VALUES = {
    "state": set(STATES),
    "part": {*PARTS, "runs", "home", "months", "history", "agents", "steps"},
    "status": {"success", "failure", "canceled", "skipped", "started"},
    "kind": {"clean", "rejected"},
}
SELECTOR = re.compile(r"\b(taxi_\w+|up)(?:\{([^}]*)\})?")


def selectors(expression):
    """The metrics of an expression, each with its matchers: label → values that it names (none for a variable)."""
    for name, matchers in SELECTOR.findall(expression):
        found = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers)
        yield name, {label: [] if "$" in value else value.split("|") for label, value in found}


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[f"{i}" for i in range(len(EXPRESSIONS))])
def test_every_metric_label_and_value_is_exported(title, expression):
    found = list(selectors(expression))
    assert found, title
    for name, matchers in found:
        assert name in LABELS, f"{title}: {name} is not exported"
        for label, values in matchers.items():
            assert label in LABELS[name], f"{title}: {name} has no label {label}"
            assert label not in VALUES or set(values) <= VALUES[label], f"{title}: {label} is never {values}"


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=[f"{i}" for i in range(len(EXPRESSIONS))])
def test_labels_by_which_is_summed_exist_and_brackets_close(title, expression):
    labels = set.union(*(LABELS[name] for name, _ in selectors(expression)))
    for grouped in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= labels, title
    assert all(expression.count(opening) == expression.count(closing) for opening, closing in ("()", "{}", "[]"))
    rated = re.findall(r"\b(?:rate|increase)\((taxi_\w+)", expression)
    assert all(name.endswith("_total") for name in rated), f"{title}: only a counter has a rate"


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_says_what_is_wrong_and_what_to_do(rule):
    assert re.fullmatch(r"(\d+[mh])", rule["for"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description"}
    labels = set.union(*(LABELS[name] for name, _ in selectors(rule["expr"])))
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels
    assert f"`{rule['alert']}`" in (FOLDER / "README.md").read_text("utf-8")


def test_the_alerts_cover_what_people_are_woken_for():
    named = {name for rule in RULES for name, _ in selectors(rule["expr"])}
    assert named >= {
        "taxi_up",
        "taxi_months",
        "taxi_newest_month_age_seconds",
        "taxi_outbox_oldest_age_seconds",
        "taxi_disk_free_bytes",
        "taxi_failed_checks",
        "taxi_run_in_progress_oldest_age_seconds",
    }
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_a_legend_names_labels_that_its_metric_has():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            labels = set.union(*(LABELS[name] for name, _ in selectors(target["expr"])))
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, panel["title"]


def test_the_dashboard_is_what_grafana_takes():
    assert {"uid", "title", "panels", "templating", "schemaVersion", "time", "refresh"} <= set(DASHBOARD)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", " ".join(expression for _, expression in PANEL_EXPRESSIONS))) <= variables
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()
            assert label in LABELS[name]
    taken = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
