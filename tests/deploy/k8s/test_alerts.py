"""Alerts and dashboard ask only for what the code serves, and each alert tells its reader what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import REGISTRY

from bridge import metrics
from bridge.cli import exporter
from bridge.settings.loading import WorkerSettings
from tests.support.alerts import ALERTS, COMPONENT, DASHBOARD, REPOSITORY, RULES, TARGET_LABELS, faults, our_metrics

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: How a rule asks how much one of our counters has grown.
GROWTH = r"(?:increase|rate)\((bridge_\w+)"
DOCS = (REPOSITORY / "docs" / "operate" / "alerts.md").read_text(encoding="utf-8")


def test_the_check_finds_what_is_wrong():
    """A metric that nobody serves, a label that it has not, and what is no PromQL are found, wherever they stand."""
    assert faults("max by (queue) (bridge_leases) > 0") == ["nothing has a label queue"]
    assert faults('sum(rate(bridge_task_runs_total{que="a"}[5m]))') == ["bridge_task_runs_total has no label que"]
    assert {"no metric up", "no metric bridge_lease"} <= set(faults("up > 0 and on (pod) (-(bridge_lease))"))
    with pytest.raises(ValueError, match="unclosed"):
        faults("sum(")


def test_what_the_code_serves():
    """Counters, histograms with their buckets, and the exporter's gauges are all found in the code."""
    served = our_metrics()
    assert served["bridge_task_seconds_bucket"] >= {"task", "le", "pod"}
    assert served["bridge_messages_settled_total"] >= {"queue", "outcome", "reason"}
    assert served["bridge_queue_messages"] >= {"queue", "kind", "state"}
    assert {"bridge_queue_oldest_message_age_seconds", "bridge_queue_read_timestamp_seconds"} <= served.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_rule_asks_for_what_there_is(rule):
    """Each expression is PromQL and names only metrics and labels that are served."""
    assert faults(rule["expr"]) == []


def test_every_counter_that_a_rule_watches_grow_is_seen_from_its_first_event():
    """A series begins with its first event: it is told as 0 from the start, or the rule counts its first value."""
    metrics.begin_at_zero(["from-the-start"])
    watched = {(metric, rule["expr"]) for rule in RULES for metric in re.findall(GROWTH, rule["expr"])}
    for metric, expression in watched:
        labels = our_metrics()[metric] - TARGET_LABELS
        value = REGISTRY.get_sample_value(metric, dict.fromkeys(labels, "from-the-start"))
        assert value is not None or re.search(rf"unless {metric}\S* offset 15m\) or increase\({metric}", expression), (
            metric
        )
    assert {metric for metric, _ in watched} > {"bridge_messages_expired_total", "bridge_messages_settled_total"}
    for counter in (metrics.received, metrics.expired):
        counter.remove("from-the-start")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_asks_for_what_there_is(panel):
    """So do the dashboard's panels, once Grafana has put in its variables."""
    assert panel["targets"]
    assert panel["description"]
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "5m")
        variables = set(re.findall(r"\$(\w+)", expression))
        assert variables <= {variable["name"] for variable in DASHBOARD["templating"]["list"]}
        assert faults(re.sub(r"\$\w+", ".*", expression)) == []


def test_the_dashboard_is_laid_out():
    """Panels have ids of their own, lie within 24 columns and do not cover each other."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize(("name", "alert"), ALERTS.items())
def test_every_alert_helps_its_reader(name, alert):
    """Each has a severity, a summary, a description, and a link to its section of docs/operate/alerts.md."""
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert len(alert["annotations"]["description"]) > 60
    assert alert["annotations"]["runbook_url"] == f"docs/operate/alerts.md#{name.lower()}"
    assert f"\n### {name}\n" in DOCS
    # A label that the expression drops would come out empty.
    shown = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", alert["expr"]))))
    assert shown <= kept


def test_no_section_is_left_over():
    """docs/operate/alerts.md explains no alert that is not there."""
    assert set(re.findall(r"(?m)^### (\w+)$", DOCS)) == set(ALERTS)


def test_the_docs_change_the_threshold_that_they_speak_of():
    """The example of a patch in the docs points at the rule whose expression it replaces."""
    group, rule = map(int, re.search(r"/spec/groups/(\d+)/rules/(\d+)/expr", DOCS).groups())
    groups = yaml.safe_load((COMPONENT / "prometheusrule.yaml").read_text())["spec"]["groups"]
    value = re.search(r"value: (.+)", DOCS)[1]
    assert value.rsplit(" ", 1)[0] == groups[group]["rules"][rule]["expr"].rsplit(" ", 1)[0]


def test_the_exporter_starts_as_the_manifest_says():
    """The command line of the Deployment is one that the command takes, and its variables are settings."""
    documents = list(yaml.safe_load_all((COMPONENT / "exporter.yaml").read_text()))
    [container] = documents[1]["spec"]["template"]["spec"]["containers"]
    program, name, *options = container["args"]
    assert (program, name) == ("brigade", "exporter")
    given = exporter.command.make_context(name, list(options)).params
    assert given["port"] == container["ports"][0]["containerPort"]
    settings = {field.validation_alias for field in WorkerSettings.model_fields.values()}
    assert {variable["name"] for variable in container["env"]} <= settings


def test_kustomize_builds_it(tmp_path):
    """The component can be taken into an overlay; the dashboard arrives as a ConfigMap that Grafana finds."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.fail("no kubectl") if os.environ.get("CI") == "true" else pytest.skip("kubectl is not installed")
    shutil.copytree(COMPONENT, tmp_path / "monitoring")
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        "namespace: mine\ncomponents: [../monitoring]\n"
    )
    built = subprocess.run(
        [kubectl, "kustomize", str(tmp_path / "overlay")], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    objects = {document["kind"]: document for document in yaml.safe_load_all(built.stdout)}
    assert set(objects) == {"ConfigMap", "Deployment", "PodMonitor", "PrometheusRule", "ServiceAccount"}
    assert {document["metadata"]["namespace"] for document in objects.values()} == {"mine"}
    dashboard = objects["ConfigMap"]
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert set(dashboard["data"]) == {"bucket-brigade.json"}
