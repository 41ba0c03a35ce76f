"""docs/operate/health.md says what the code serves: every metric with its labels, every path, every field."""

from __future__ import annotations

import json
import re

from prometheus_client import Counter, Gauge, Histogram

from bridge import metrics
from bridge.health.readiness import QueueFacts, report
from tests import REPOSITORY

DOCS = (REPOSITORY / "docs" / "operate" / "health.md").read_text(encoding="utf-8")


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels of each metric in the table of the docs."""
    rows = re.findall(r"^\| `(bridge_\w+)` \| (\w+) \|(.*?)\|", DOCS, flags=re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    return {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def exported() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The same of each metric in ``bridge.metrics``; a counter's series ends in ``_total``."""
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            [family] = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, tuple(metric._labelnames))
    return found


def test_the_docs_list_every_metric() -> None:
    """Names, types and labels in docs/operate/health.md are those of the code, none more and none less."""
    assert documented() == exported()


def test_all_metrics_are_ours_and_have_no_unbounded_label() -> None:
    """All begin with ``bridge_``, and no label takes what has no bound."""
    allowed = {"queue", "task", "outcome", "reason", "action", "result", "use"}
    assert all(name.startswith("bridge_") for name in exported())
    assert {label for _, labels in exported().values() for label in labels} <= allowed


def test_the_docs_show_every_field() -> None:
    """The example of ``/health`` has the fields of the report, and the table explains each of the outermost ones."""
    example = json.loads(re.findall(r"```json\n(.*?)```", DOCS, flags=re.DOTALL)[0])
    facts = QueueFacts("uploads", "event", True, 4, 1.0, "ReceiveMessage", "ok", 1.0)
    said = report([facts], reasons=[], draining=False, settled={"deleted": 1}, version="1")
    assert list(example) == list(said)
    assert list(example["queues"][0]) == list(said["queues"][0])
    assert list(example["queues"][0]["last_call"]) == list(said["queues"][0]["last_call"])
    explained = re.findall(r"^\| `(\w+)` \|", DOCS, flags=re.MULTILINE)
    assert set(said) <= set(explained)
