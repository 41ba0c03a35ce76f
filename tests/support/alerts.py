"""The files of k8s/components/monitoring, read; and what metrics there are to ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

import bridge.metrics
from bridge.monitoring.queue_depths import Depths, Watched
from tests import REPOSITORY

COMPONENT = REPOSITORY / "k8s" / "components" / "monitoring"
GROUPS: list[dict[str, Any]] = yaml.safe_load((COMPONENT / "prometheusrule.yaml").read_text())["spec"]["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
DASHBOARD: dict[str, Any] = json.loads((COMPONENT / "dashboard.json").read_text())

#: What a scrape through the PodMonitor adds to each of our samples.
TARGET_LABELS = {"namespace", "pod", "container", "job", "instance"}

#: Metrics of others, with their labels: kube-state-metrics 2.x (docs/metrics/workload) and KEDA 2.20 (its page
#: "Integrate with Prometheus").
FOREIGN = {
    "kube_pod_container_status_waiting_reason": {"namespace", "pod", "container", "reason", "uid"},
    "kube_pod_container_status_last_terminated_reason": {"namespace", "pod", "container", "reason", "uid"},
    "kube_pod_container_status_restarts_total": {"namespace", "pod", "container", "uid"},
    "kube_pod_container_status_running": {"namespace", "pod", "container", "uid"},
    "kube_deployment_spec_replicas": {"namespace", "deployment"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_job_failed": {"namespace", "job_name", "condition"},
    "keda_scaled_object_errors_total": {"namespace", "exported_namespace", "scaledObject"},
}


def our_metrics() -> dict[str, set[str]]:
    """Name → labels of every series that a worker or the exporter serves, asked of the code itself."""
    found: dict[str, set[str]] = {}
    collectors = [value for value in vars(bridge.metrics).values() if isinstance(value, MetricWrapperBase)]
    for metric in collectors:
        for name in REGISTRY._collector_to_names[metric]:
            extra = {"le"} if name.endswith("_bucket") else set()
            found[name] = set(metric._labelnames) | extra | TARGET_LABELS
    queue = Watched("q", "https://sqs.eu-west-1.amazonaws.com/1/q", "event")
    depths = Depths(None, [queue])
    depths._depths[queue] = (2e10, {"visible": 1})
    depths._ages[queue] = (2e10, 1.0)
    registry = CollectorRegistry()
    registry.register(depths)
    for family in registry.collect():
        found[family.name] = set(family.samples[0].labels) | TARGET_LABELS
    return found


def known_metrics() -> dict[str, set[str]]:
    """Name → labels of all that an expression may ask for."""
    recorded = {rule["record"]: grouped_by(rule["expr"]) for rule in RULES if "record" in rule}
    return our_metrics() | FOREIGN | recorded


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector in the expression; raises ValueError when it is no PromQL."""
    return [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def nodes(expression: str) -> Iterator[Any]:
    """Every node of the expression's tree."""
    waiting = [promql_parser.parse(expression)]
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
            child = getattr(node, name, None)
            if isinstance(child, promql_parser.Expr):
                waiting.append(child)
        waiting += list(getattr(node, "args", ()))


def grouped_by(expression: str) -> set[str]:
    """Every label that the expression groups by or matches on."""
    labels: set[str] = set()
    for node in nodes(expression):
        modifier = getattr(node, "modifier", None)
        labels |= set(getattr(modifier, "labels", None) or ())
        labels |= set(getattr(getattr(modifier, "matching", None), "labels", None) or ())
    return labels


def faults(expression: str) -> list[str]:
    """What in the expression names a metric or a label that is not there."""
    known = known_metrics()
    found = []
    there: set[str] = set()
    for selector in selectors(expression):
        labels = known.get(selector.name or "")
        if labels is None:
            found.append(f"no metric {selector.name}")
            continue
        there |= labels
        wrong = {matcher.name for matcher in selector.matchers.matchers} - labels
        found += [f"{selector.name} has no label {name}" for name in wrong]
    return found + [f"nothing has a label {name}" for name in grouped_by(expression) - there]
