"""What security scanners ask of manifests, held on all that can be applied; an exception has its reason beside it.

The rules are those of the restricted Pod Security level (https://kubernetes.io/docs/concepts/security/pod-security-standards/)
and of checkov's framework "kubernetes", which itself is too large to install for this.
"""

from __future__ import annotations

import ipaddress
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.k8s.conftest import EVERYTHING, Rendered
from tests.deploy.k8s.kustomize import Document, one

#: Rule → pod → why it may break it. Each is used: an exception that nothing needs any more fails.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "no-host-path": {"fluent-bit": "its work is to read the node's log files, so it has a namespace of its own"},
    "non-root": {"fluent-bit": "the kubelet's log files are readable by root alone; it has no capability besides"},
    "readiness": {
        "bucket-brigade-exporter": "nothing waits for it, and a queue that cannot be read is an alert of its own"
    },
    "no-token": {
        "bucket-brigade-worker": "it marks its own pod, and launches Jobs with components/job-launcher",
        "bucket-brigade-job-cleaner": "it lists and deletes Jobs",
    },
}
# Not asked of anybody, although checkov does: a limit for the CPU (CKV_K8S_11; a throttled worker loses its leases),
# imagePullPolicy Always (15; tags are not moved, and a registry that is down must not keep a pod from starting),
# secrets as files (35; Flower and Valkey take theirs from the environment), a uid above 10000 (40; our image has its
# own, and names it as a number), and digests (43; deploy.sh puts in that of our image, you choose those of the others).


class Rules:
    """Collects who breaks which rule."""

    def __init__(self) -> None:
        self.broken: set[tuple[str, str]] = set()

    def hold(self, rule: str, pod: str, holds: object) -> None:
        if not holds:
            self.broken.add((rule, pod))


def look(name: str, kind: str, pod: dict[str, Any], rules: Rules) -> None:
    """Hold one pod to the rules."""
    context = pod.get("securityContext") or {}
    rules.hold("non-root", name, context.get("runAsNonRoot") is True and context.get("runAsUser") != 0)
    rules.hold("seccomp", name, context.get("seccompProfile") == {"type": "RuntimeDefault"})
    rules.hold("no-host-namespace", name, not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys())
    rules.hold("no-token", name, pod.get("automountServiceAccountToken") is False)
    rules.hold("no-service-links", name, pod.get("enableServiceLinks") is False)
    rules.hold("own-account", name, pod.get("serviceAccountName") not in (None, "default"))
    volumes = pod.get("volumes", [])
    rules.hold("no-host-path", name, not any("hostPath" in volume for volume in volumes))
    rules.hold(
        "size-limit", name, all(volume["emptyDir"].get("sizeLimit") for volume in volumes if "emptyDir" in volume)
    )
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        security = container.get("securityContext") or {}
        rules.hold("no-escalation", name, security.get("allowPrivilegeEscalation") is False)
        rules.hold("read-only-root", name, security.get("readOnlyRootFilesystem") is True)
        rules.hold("no-capabilities", name, security.get("capabilities") == {"drop": ["ALL"]})
        rules.hold("not-privileged", name, not security.get("privileged"))
        # HOME and TMPDIR of our image, whose root is read-only.
        mounted = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
        ours = container["image"].split("@")[0].split(":")[0].endswith("bucket-brigade")
        rules.hold("scratch", name, not ours or "/tmp" in mounted)  # noqa: S108 - a path in a container
        resources = container["resources"]
        rules.hold("requests", name, {"cpu", "memory"} <= resources["requests"].keys())
        rules.hold("memory-limit", name, "memory" in resources["limits"])
        rules.hold("no-host-port", name, not any("hostPort" in port for port in container.get("ports", ())))
        if kind in ("Deployment", "DaemonSet"):
            rules.hold("liveness", name, "livenessProbe" in container)
            rules.hold("readiness", name, "readinessProbe" in container)


def all_broken(rendered: Rendered, check: ModuleType, name: str) -> Rules:
    """Who breaks which rule in a rendering."""
    rules = Rules()
    for document in rendered(name):
        pod = check.pod_spec(document)
        if pod is not None:
            look(document["metadata"]["name"], document["kind"], pod, rules)
    return rules


@pytest.mark.parametrize("name", EVERYTHING)
def test_rules_hold(name: str, rendered: Rendered, check: ModuleType) -> None:
    """No pod breaks a rule without a reason that is written down."""
    broken = all_broken(rendered, check, name).broken
    assert {(rule, pod) for rule, pod in broken if pod not in EXCEPTIONS.get(rule, {})} == set()


def test_exceptions_are_needed(rendered: Rendered, check: ModuleType) -> None:
    """An exception that nobody needs any more is taken out."""
    broken = {pair for name in EVERYTHING for pair in all_broken(rendered, check, name).broken}
    assert {(rule, pod) for rule, pods in EXCEPTIONS.items() for pod in pods} == broken


@pytest.mark.parametrize("name", EVERYTHING)
def test_images_are_pinned(name: str, rendered: Rendered, check: ModuleType) -> None:
    """Every image has a tag that is not moved, or a digest."""
    images = {
        container["image"]
        for document in rendered(name)
        if (pod := check.pod_spec(document))
        for container in pod["containers"]
    }
    assert images
    assert {image: fault for image in images if (fault := check.image_fault(image))} == {}


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "logging"])
def test_the_namespace_is_restricted(name: str, rendered: Rendered) -> None:
    """Whatever else is started beside the workers is held to the restricted level by the API server."""
    labels = one(rendered(name), "Namespace", "bucket-brigade")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}


@pytest.mark.parametrize("name", EVERYTHING)
def test_rights_name_what_they_are_for(name: str, rendered: Rendered) -> None:
    """No role says "*", reads Secrets, or reaches beyond its namespace; a worker may patch pods and create Jobs."""
    documents = rendered(name)
    assert not [doc for doc in documents if doc["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    roles = {doc["metadata"]["name"]: doc["rules"] for doc in documents if doc["kind"] == "Role"}
    for rules in roles.values():
        for rule in rules:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"]
    workers = {
        (*rule["resources"], *rule["verbs"])
        for doc in documents
        if doc["kind"] == "RoleBinding" and doc["subjects"][0]["name"] == "bucket-brigade-worker"
        for rule in roles[doc["roleRef"]["name"]]
    }
    assert workers <= {("pods", "patch"), ("jobs", "create")}


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "logging"])
def test_a_right_to_patch_pods_comes_with_its_fence(name: str, rendered: Rendered) -> None:
    """Where workers may patch pods, the admission policy that keeps each to its own is there, and denies."""
    documents = rendered(name)
    kinds = {doc["kind"] for doc in documents}
    has_right = any(rule["resources"] == ["pods"] for d in documents if d["kind"] == "Role" for rule in d["rules"])
    assert ("ValidatingAdmissionPolicy" in kinds) == has_right
    if has_right:
        binding = one(documents, "ValidatingAdmissionPolicyBinding", "bucket-brigade-own-pod")["spec"]
        assert binding == {"policyName": "bucket-brigade-own-pod", "validationActions": ["Deny"]}
        assert one(documents, "ValidatingAdmissionPolicy", "bucket-brigade-own-pod")["spec"]["failurePolicy"] == "Fail"


# ---- the network


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    for part in selector.get("matchExpressions", ()):
        inside = labels.get(part["key"]) in part["values"]
        if inside != (part["operator"] == "In"):
            return False
    return True


def may_reach(documents: list[Document], labels: dict[str, str], address: str, port: int) -> bool:
    """Whether a pod with these labels may open a connection to an address that is no pod of the cluster."""
    policies = [doc["spec"] for doc in documents if doc["kind"] == "NetworkPolicy"]
    mine = [spec for spec in policies if "Egress" in spec["policyTypes"] and selects(spec["podSelector"], labels)]
    assert mine, "no policy at all: everything would be allowed"
    ip = ipaddress.ip_address(address)

    def takes(block: dict[str, Any]) -> bool:
        return ip in ipaddress.ip_network(block["cidr"]) and not any(
            ip in ipaddress.ip_network(part) for part in block.get("except", ())
        )

    return any(
        port in [entry["port"] for entry in rule["ports"]]
        and ("to" not in rule or any("ipBlock" in peer and takes(peer["ipBlock"]) for peer in rule["to"]))
        for spec in mine
        for rule in spec.get("egress", ())
    )


def pods(documents: list[Document], check: ModuleType) -> dict[str, dict[str, str]]:
    """Labels of all pods that a rendering makes, by their name label."""
    found = {}
    for document in documents:
        if check.pod_spec(document) is None:
            continue
        spec = document["spec"]
        spec = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
        spec = spec["jobTargetRef"] if document["kind"] == "ScaledJob" else spec
        labels = spec["template"]["metadata"]["labels"]
        found[labels["app.kubernetes.io/name"]] = labels
    return found


@pytest.mark.parametrize("name", EVERYTHING)
def test_only_what_is_said_is_reached(name: str, rendered: Rendered, check: ModuleType) -> None:
    """Pods reach AWS, DNS and Pod Identity, the API server if they need it, and never the node's own credentials."""
    documents = rendered(name)
    for pod, labels in pods(documents, check).items():
        assert not may_reach(documents, labels, "169.254.169.254", 80), pod
        assert not may_reach(documents, labels, "fd00:ec2::254", 80), pod
        assert not may_reach(documents, labels, "203.0.113.7", 80), pod
        assert not may_reach(documents, labels, "203.0.113.7", 22), pod
        assert may_reach(documents, labels, "169.254.20.10", 53), pod
        to_aws = pod != "valkey"
        for address, port in (("52.95.1.1", 443), ("2600:1f00::1", 443), ("169.254.170.23", 80), ("fd00:ec2::23", 80)):
            assert may_reach(documents, labels, address, port) == to_aws, (pod, address)
        assert may_reach(documents, labels, "10.0.0.1", 6443) == (pod in ("worker", "job-cleaner")), pod


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "logging"])
def test_the_bus_is_reached_by_those_that_use_it(name: str, rendered: Rendered, check: ModuleType) -> None:
    """Valkey takes connections of workers and Flower alone, and both may make them."""
    documents = rendered(name)
    labels = pods(documents, check)
    policies = [doc["spec"] for doc in documents if doc["kind"] == "NetworkPolicy"]
    allowed = [
        (peer["podSelector"], [entry["port"] for entry in rule["ports"]])
        for spec in policies
        if "Ingress" in spec["policyTypes"] and selects(spec["podSelector"], labels["valkey"])
        for rule in spec.get("ingress", ())
        for peer in rule["from"]
    ]
    users = {pod for pod, found in labels.items() if any(6379 in p and selects(s, found) for s, p in allowed)}
    assert users == {"flower", "scaled-job" if "scaled-job" in labels else "worker"}
    outgoing = {
        pod
        for pod, found in labels.items()
        for spec in policies
        if selects(spec["podSelector"], found)
        for rule in spec.get("egress", ())
        if [entry["port"] for entry in rule["ports"]] == [6379]
    }
    assert outgoing == users


def test_flower_asks_who_is_there(rendered: Rendered) -> None:
    """Flower has password and cookie secret from the Secret, changes nothing, and no Service leads out."""
    documents = rendered("flower-ingress")
    [container] = one(documents, "Deployment", "bucket-brigade-flower")["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("valueFrom", {}).get("secretKeyRef", {}) for entry in container["env"]}
    for variable in ("FLOWER_BASIC_AUTH", "FLOWER_COOKIE_SECRET", "BRIDGE_MONITOR_URL"):
        assert env[variable]["name"] == "bucket-brigade-monitor"
        assert not env[variable].get("optional")
    assert "--read_only" in container["args"]
    assert {doc["spec"].get("type", "ClusterIP") for doc in documents if doc["kind"] == "Service"} == {"ClusterIP"}
    ingress = one(documents, "Ingress", "bucket-brigade-flower")["spec"]
    assert ingress["tls"][0]["hosts"] == [rule["host"] for rule in ingress["rules"]]
