"""The runbook in docs/operating.md knows every alert, and no others."""

import re

import yaml

from taxi_platform_tests.support.earlier_versions import ROOT


def test_every_alert_has_its_place_in_the_runbook():
    rules = yaml.safe_load((ROOT / "deploy/monitoring/taxi-rules.yml").read_text("utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    assert len(alerts) > 10
    assert set(re.findall(r"`(Taxi[A-Za-z]+)`", (ROOT / "docs/operating.md").read_text("utf-8"))) == alerts
