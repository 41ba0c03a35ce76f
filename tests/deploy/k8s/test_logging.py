"""components/logging: the pipeline has its variables, and the saved queries ask for what our lines have."""

from __future__ import annotations

import re

import yaml

from tests.deploy.k8s.conftest import Rendered
from tests.deploy.k8s.kustomize import K8S, one

FOLDER = K8S / "components" / "logging"
DOCS = (K8S.parent / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
#: Of CloudWatch Logs Insights itself: commands, functions, operators, and units of time.
LANGUAGE = {
    *("fields", "filter", "sort", "limit", "stats", "by", "as", "and", "or", "in", "asc", "desc"),
    *("count", "latest", "max", "pct", "bin", "1h"),
}


def queries() -> dict[str, str]:
    """The saved queries by their name in the template; CloudFormation's short tags are read as plain texts."""
    text = re.sub(r"!\w+ ", "", (FOLDER / "queries.yaml").read_text(encoding="utf-8"))
    resources = yaml.safe_load(text)["Resources"]
    return {name: resource["Properties"]["QueryString"] for name, resource in resources.items()}


def test_queries_ask_for_fields_and_events_of_ours() -> None:
    """Every field of a query, and every event, outcome and level that it looks for, is in docs/reference/logs.md."""
    found = queries()
    assert len(found) > 5
    for name, query in found.items():
        wanted = {word for word in re.findall(r'"([^"]+)"', query) if not word.startswith("PUT THE ")}
        own_names = set(re.findall(r"\bas (\w+)", query))
        rest = re.sub(r'"[^"]*"', "", query)
        fields = set(re.findall(r"(?<![@\w])[a-z]\w*", rest)) - LANGUAGE - own_names
        assert fields, name
        known = set(re.findall(r"\w+", DOCS))
        assert (fields | wanted) <= known, f"{name}: {(fields | wanted) - known}"


def test_the_pipeline_has_its_variables(rendered: Rendered) -> None:
    """Every ${VARIABLE} of Fluent Bit's configuration is in settings.env or the pod, and none there is without use."""
    used = set(re.findall(r"\$\{(\w+)\}", (FOLDER / "pipeline.yaml").read_text(encoding="utf-8")))
    settings = set(re.findall(r"(?m)^(\w+)=", (FOLDER / "settings.env").read_text(encoding="utf-8")))
    pod = one(rendered("logging"), "DaemonSet", "fluent-bit")["spec"]["template"]["spec"]
    own = {entry["name"] for entry in pod["containers"][0]["env"]}
    assert used == settings | own


def test_the_pipeline_writes_where_the_pod_may(rendered: Rendered) -> None:
    """What Fluent Bit remembers lies in a folder that is mounted to be written; its server is where the probes ask."""
    pipeline = yaml.safe_load((FOLDER / "pipeline.yaml").read_text(encoding="utf-8"))
    [container] = one(rendered("logging"), "DaemonSet", "fluent-bit")["spec"]["template"]["spec"]["containers"]
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    [tail] = pipeline["pipeline"]["inputs"]
    for path in (pipeline["service"]["storage.path"], tail["db"]):
        assert any(path.startswith(f"{folder}/") for folder in writable)
    assert [port["containerPort"] for port in container["ports"]] == [pipeline["service"]["http_port"]]
