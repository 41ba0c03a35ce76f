"""Each alert fires when it should and keeps still when it should: Prometheus itself evaluates them, in promtool."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
import yaml

from tests.support.alerts import ALERTS, GROUPS, RULES

#: The exporter's trace in the namespace, which the alerts on pods and Jobs ask for.
PRESENT = {'bridge_draining{namespace="n", pod="w"}': "0x120"}
VISIBLE = 'bridge_queue_messages{namespace="n", pod="e", queue="q", kind="event", state="visible"}'
RECEIVED = 'bridge_messages_received_total{namespace="n", pod="w", queue="q"}'
RUNS = 'bridge_task_runs_total{namespace="n", pod="w", task="t", outcome="%s"}'
HPA = 'namespace="%s", horizontalpodautoscaler="keda-hpa-worker"'
WAITING = 'kube_pod_container_status_waiting_reason{namespace="%s", pod="w", container="worker", reason="%s"}'
TERMINATED = 'kube_pod_container_status_last_terminated_reason{namespace="n", pod="w", container="worker", reason="%s"}'
RESTARTS = 'kube_pod_container_status_restarts_total{namespace="n", pod="w", container="worker"}'
POLL = 'bridge_last_poll_timestamp_seconds{namespace="n", pod="w", queue="q"}'
LEASES = 'bridge_leases{namespace="n", pod="w"}'
AGE = 'bridge_queue_oldest_message_age_seconds{namespace="n", pod="e", queue="q", kind="%s"}'
DLQ = 'bridge_queue_messages{namespace="n", pod="e", queue="q-dlq", kind="dlq", state="visible"}'
READ_AT = 'bridge_queue_read_timestamp_seconds{namespace="n", pod="e", queue="q", kind="event"}'
OTHER_READ_AT = READ_AT.replace('"q"', '"other"')
EXPORTER = 'kube_deployment_spec_replicas{namespace="n", deployment="bucket-brigade-exporter"}'
CALLS = 'bridge_sqs_requests_total{namespace="n", pod="e", action="GetQueueAttributes", result="AccessDenied"}'
JOB = 'kube_pod_container_status_running{namespace="n", pod="bucket-brigade-run-once-%s", container="worker"}'
EXPIRED = 'bridge_messages_expired_total{namespace="n", pod="w", queue="q"}'
SETTLED = 'bridge_messages_settled_total{namespace="n", pod="%s", queue="q", outcome="%s", reason="%s"}'
BUS = 'bridge_monitor_connected{namespace="n", pod="%s", use="%s"}'
RETRIES, SUCCESSES = RUNS % "retried", RUNS % "succeeded"

#: Alert, what is seen from minute to minute (promtool's notation), and whether it has fired after two hours. Series
#: begin as the code's do: at 0 what a worker tells from its start, at their first event all others.
CASES = [
    ("BridgeDeadLetters", {DLQ: "0x60 1x60"}, True),
    ("BridgeDeadLetters", {DLQ: "0x118 1x2", VISIBLE: "50x120"}, False),
    ("BridgeOldMessages", {AGE % "event": "3601x120"}, True),
    ("BridgeOldMessages", {AGE % "event": "3599x120", AGE % "dlq": "99999x120"}, False),
    ("BridgeNobodyReceives", {VISIBLE: "5x120"}, True),
    ("BridgeNobodyReceives", {VISIBLE: "5x120", RECEIVED: "7x120", LEASES: "0x120"}, True),
    ("BridgeNobodyReceives", {VISIBLE: "5x120", RECEIVED: "0+1x120", LEASES: "0x120"}, False),
    ("BridgeNobodyReceives", {VISIBLE: "5x120", RECEIVED: "7x120", LEASES: "2x120"}, False),
    ("BridgeNobodyReceives", {VISIBLE: "0x120"}, False),
    # Jobs are not scraped; one that runs is seen by kube-state-metrics, between two others too.
    ("BridgeNobodyReceives", {VISIBLE: "5x120", JOB % "a-x": "_x60 1x20 0x40", JOB % "b-x": "_x85 1 0x34"}, True),
    (
        "BridgeNobodyReceives",
        {VISIBLE: "5x120", JOB % "a-x": "_x90 1 0x29", JOB % "b-x": "_x98 1 _x6 1 _x6 1 _x7"},
        False,
    ),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60 3600x60"}, True),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60 _x60"}, True),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60 3600x60", OTHER_READ_AT: "0+60x120"}, True),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60 _x60", OTHER_READ_AT: "0+60x120"}, True),
    ("BridgeDepthsUnknown", {CALLS: "0+1x120"}, True),
    ("BridgeDepthsUnknown", {EXPORTER: "1x120"}, True),
    ("BridgeDepthsUnknown", PRESENT, True),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x120", OTHER_READ_AT: "0+60x120", EXPORTER: "1x120", **PRESENT}, False),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x100 _x8 6540+60x12", **PRESENT}, False),
    ("BridgeDepthsUnknown", {EXPORTER: "0x120"}, False),
    ("BridgeWorkerStuck", {'bridge_live{namespace="n", pod="w"}': "1x60 0x60"}, True),
    ("BridgeWorkerStuck", {'bridge_live{namespace="n", pod="w"}': "1x117 0x2"}, False),
    ("BridgePollStuck", {POLL: "0x120", LEASES: "0x120", **PRESENT}, True),
    ("BridgePollStuck", {POLL: "0x120", LEASES: "4x120", **PRESENT}, False),
    ("BridgePollStuck", {POLL: "0+60x120", LEASES: "0x120", **PRESENT}, False),
    ("BridgeRetryStorm", {RETRIES: "1+6x120", SUCCESSES: "1+4x120"}, True),
    ("BridgeRetryStorm", {RETRIES: "_x106 50x14", SUCCESSES: "_x106 10x14"}, True),
    ("BridgeRetryStorm", {RETRIES: "_x106 50x8 _x6", SUCCESSES: "9x120"}, True),
    ("BridgeRetryStorm", {RETRIES: "_x106 50x14", SUCCESSES: "_x106 90x14"}, False),
    ("BridgeRetryStorm", {RETRIES: "_x60 50x60", SUCCESSES: "_x60 10x60"}, False),
    ("BridgeRetryStorm", {RETRIES: "0+4x120", SUCCESSES: "0+6x120"}, False),
    ("BridgeRetryStorm", {RETRIES: "0+1x120", SUCCESSES: "0x120"}, False),
    ("BridgeLeasesLost", {EXPIRED: "0x110 0+1x10"}, True),
    ("BridgeLeasesLost", {EXPIRED: "_x105 0x5 50x10"}, True),
    ("BridgeLeasesLost", {EXPIRED: "0x60 10x60"}, False),
    ("BridgeSettleFailed", {SETTLED % ("w", "settle_failed", "deleted"): "_x115 1x5"}, True),
    ("BridgeSettleFailed", {SETTLED % ("w", "settle_failed", "deleted"): "_x110 50x10"}, True),
    ("BridgeSettleFailed", {SETTLED % ("w", "settle_failed", "deleted"): "_x60 1x50 2x10"}, True),
    (
        "BridgeSettleFailed",
        {
            SETTLED % ("w", "settle_failed", "deleted"): "_x60 3x60",
            SETTLED % ("w", "settle_failed", "exhausted"): "_x112 1x8",
            SETTLED % ("gone", "settle_failed", "deleted"): "_x60 3x20 _x40",
        },
        True,
    ),
    ("BridgeSettleFailed", {SETTLED % ("w", "settle_failed", "deleted"): "_x60 50x60"}, False),
    ("BridgeSettleFailed", {SETTLED % ("w", "deleted", ""): "_x110 0+9x10"}, False),
    ("BridgeEventsDropped", {'bridge_monitor_events_dropped_total{namespace="n", pod="w"}': "0+9x120"}, True),
    ("BridgeEventsDropped", {'bridge_monitor_events_dropped_total{namespace="n", pod="w"}': "9x120"}, False),
    ("BridgeMonitorBusDown", {BUS % ("w", "events"): "1x100 0x20", BUS % ("w", "control"): "1x120"}, True),
    ("BridgeMonitorBusDown", {BUS % ("w", "events"): "1x120", BUS % ("x", "events"): "_x100 0x20"}, True),
    ("BridgeMonitorBusDown", {BUS % ("w", "control"): "1x100 0x8 _x12", BUS % ("x", "control"): "_x108 0x12"}, True),
    ("BridgeMonitorBusDown", {BUS % ("w", "events"): "1x100 0x8 1x12", BUS % ("w", "control"): "0x3 1x117"}, False),
    ("BridgeMonitorBusDown", {'bridge_live{namespace="n", pod="w"}': "1x120"}, False),
    ("BridgeCrashLoop", {WAITING % ("n", "CrashLoopBackOff"): "0x60 1x60", **PRESENT}, True),
    ("BridgeCrashLoop", {WAITING % ("n", "CrashLoopBackOff"): "0x60 1 _ _ 1" + " _ _ _ 1" * 14, **PRESENT}, True),
    ("BridgeCrashLoop", {WAITING % ("other", "CrashLoopBackOff"): "1x120", **PRESENT}, False),
    ("BridgeCrashLoop", {WAITING % ("n", "ContainerCreating"): "1x120", **PRESENT}, False),
    ("BridgeOutOfMemory", {TERMINATED % "OOMKilled": "1x120", RESTARTS: "0x110 1x10", **PRESENT}, True),
    ("BridgeOutOfMemory", {TERMINATED % "OOMKilled": "1x120", RESTARTS: "0x30 1x90", **PRESENT}, False),
    ("BridgeOutOfMemory", {TERMINATED % "Error": "1x120", RESTARTS: "0x110 1x10", **PRESENT}, False),
    *(
        (
            "BridgeScaledToMaximum",
            {
                f"kube_horizontalpodautoscaler_status_current_replicas{{{HPA % space}}}": f"{pods}x120",
                f"kube_horizontalpodautoscaler_spec_max_replicas{{{HPA % space}}}": "10x120",
                **PRESENT,
            },
            fires,
        )
        for space, pods, fires in (("n", 10, True), ("n", 9, False), ("other", 10, False))
    ),
    ("BridgeScalerFailing", {'keda_scaled_object_errors_total{scaledObject="worker"}': "0+1x120"}, True),
    ("BridgeScalerFailing", {'keda_scaled_object_errors_total{scaledObject="worker"}': "5x120"}, False),
    ("BridgeJobFailed", {'kube_job_failed{namespace="n", job_name="j", condition="true"}': "1x120", **PRESENT}, True),
    ("BridgeJobFailed", {'kube_job_failed{namespace="n", job_name="j", condition="false"}': "1x120", **PRESENT}, False),
    ("BridgeJobFailed", {'kube_job_failed{namespace="o", job_name="j", condition="true"}': "1x120", **PRESENT}, False),
]

#: The same, and when it is looked at: an exporter that stays away is not forgotten while anything of ours is there.
LATER = [
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60"}, True, "7h30m"),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60", EXPORTER: "1x1800"}, True, "30h"),
    ("BridgeDepthsUnknown", {READ_AT: "0+60x60"}, False, "30h"),
]


@pytest.fixture(scope="module")
def promtool():
    """Prometheus' own tool, from Debian's package prometheus or a release of Prometheus."""
    found = shutil.which("promtool")
    if found is None:
        missing = "promtool is not installed (Debian's package prometheus has it)"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return found


@pytest.fixture
def rules(tmp_path):
    """The rules as Prometheus reads them, without the operator's wrapping."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": GROUPS}))
    return path


def run(promtool, *args):
    """Exit code and all it said."""
    done = subprocess.run([promtool, *map(str, args)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_prometheus_takes_the_rules(promtool, rules):
    """Prometheus reads every rule, templates included."""
    code, said = run(promtool, "check", "rules", rules)
    assert code == 0, said


def test_every_alert_fires_and_keeps_still():
    """There is a case of both for each alert."""
    assert {name for name, _, fires in CASES if fires} == set(ALERTS)
    assert {name for name, _, fires in CASES if not fires} == set(ALERTS)


def case(name, seen, fires, at="2h"):
    """One test as promtool reads it."""
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in seen.items()],
        # Counted by an expression: the annotations and other labels are nobody's promise.
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
    }


def test_the_alerts_fire(promtool, tmp_path):
    """What promtool sees firing after two hours of each case is what the case says; all summaries can be written."""
    recording = [rule for rule in RULES if "record" in rule]
    files = []
    for name, alert in ALERTS.items():
        # With what it needs and nothing else: every rule of a file is evaluated each minute of each case.
        rules, cases = tmp_path / f"{name}-rules.yaml", tmp_path / f"{name}.yaml"
        rules.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [*recording, alert]}]}))
        tests = [case(*row) for row in CASES if row[0] == name] + [case(*row) for row in LATER if row[0] == name]
        cases.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
        files.append(cases)
    code, said = run(promtool, "test", "rules", *files)
    assert code == 0, said
