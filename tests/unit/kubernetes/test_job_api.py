"""The API of Kubernetes as tasks.launch_job and brigade jobs use it: what is taken, refused, listed and deleted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import JobNotAccepted, JobRefused, SettingsError
from bridge.kubernetes.job_api import OURS, connected
from bridge.kubernetes.job_manifest import MANAGED_BY, MANAGER
from tasks.launch_job import read_template
from tests.unit.kubernetes.conftest import Cluster


def job(name: str = "a", **metadata: Any) -> dict[str, Any]:
    """A Job that Kubernetes takes."""
    made = read_template(None)
    made["metadata"] = {"name": name, "labels": {MANAGED_BY: MANAGER}, **metadata}
    return made


def test_a_job_is_created_once(cluster: Cluster) -> None:
    """A second Job of a name is no error and no second Job: it is there already."""
    api = connected()
    assert api.namespace == cluster.namespace
    assert [api.create(job()), api.create(job())] == [True, False]
    assert list(cluster.jobs()) == ["a"]


def test_an_invalid_job_is_refused_for_good(cluster: Cluster) -> None:
    """What the API says of an invalid manifest is an error that is never retried, with its words in one line."""
    wrong = job()
    wrong["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    with pytest.raises(JobRefused, match=r"the Kubernetes API answered 422: .*restartPolicy"):
        connected().create(wrong)
    with pytest.raises(JobRefused, match="the Kubernetes API answered 4"):
        connected().create({**job(), "spec": {"backoffLimit": "three"}})
    with pytest.raises(JobRefused, match="the Kubernetes API answered 422"):
        connected().create(job(annotations={"task": "x" * 300_000}))
    assert cluster.jobs() == {}


def test_jobs_are_found_by_their_label(cluster: Cluster) -> None:
    """Our own Jobs are listed by their label, all Jobs by an empty selector; one is read by its name."""
    api = connected()
    api.create(job())
    api.create(job("theirs", labels={}))
    assert [found["metadata"]["name"] for found in api.list(OURS)] == ["a"]
    assert sorted(found["metadata"]["name"] for found in api.list("")) == ["a", "theirs"]
    found = api.get("a")
    assert found is not None and found["metadata"]["uid"] == cluster.jobs()["a"]["metadata"]["uid"]
    assert api.get("b") is None


def test_only_the_very_job_is_deleted(cluster: Cluster) -> None:
    """A Job that got the name of the one that was looked at meanwhile is left alone."""
    api = connected()
    api.create(job())
    uid = cluster.jobs()["a"]["metadata"]["uid"]
    assert api.delete("a", "00000000-0000-0000-0000-000000000000") is False
    assert list(cluster.jobs()) == ["a"]
    assert api.delete("a", uid) is True
    assert api.delete("a", uid) is False


def test_pods_are_deleted_with_their_job(stand_in: Cluster) -> None:
    """Left alone the API would leave a Job's pods behind."""
    assert stand_in.stand_in is not None
    api = connected()
    api.create(job())
    api.delete("a", stand_in.jobs()["a"]["metadata"]["uid"])
    [deleted] = [call for call in stand_in.stand_in.calls if call.method == "DELETE"]
    assert deleted.body["propagationPolicy"] == "Background"


def test_a_long_list_comes_in_pages(stand_in: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """More Jobs than a page has are listed once each."""
    monkeypatch.setattr("bridge.kubernetes.job_api.PAGE", 3)
    assert stand_in.stand_in is not None
    site = stand_in.stand_in
    for number in range(7):
        made = job(f"job-{number}", uid=str(number), namespace="brigade")
        site.jobs["brigade", made["metadata"]["name"]] = made
    names = [found["metadata"]["name"] for found in connected().list()]
    assert len(names) == len(set(names)) == 7
    assert site.count("GET") == 3


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (401, None, "401: over quota"),
        (403, None, "403: over quota"),
        (404, None, "404: over quota"),
        (409, "Conflict", "409: over quota"),
        (429, None, "429: over quota"),
        (500, None, "500: over quota"),
        (503, None, "503: over quota"),
    ],
)
def test_what_may_pass_is_told_as_such(stand_in: Cluster, status: int, reason: str | None, told: str) -> None:
    """Quota, rights, throttling and failures are errors that a retry may mend; a conflict is not "already exists"."""
    assert stand_in.stand_in is not None
    stand_in.stand_in.fail(status, "over\nquota", reason)
    with pytest.raises(JobNotAccepted, match=re.escape(told)):
        connected().create(job())
    assert connected().create(job()) is True


def test_a_used_up_quota_may_pass(stand_in: Cluster) -> None:
    """A ResourceQuota that is used up refuses the Job with its own words, until there is room."""
    assert stand_in.stand_in is not None
    stand_in.stand_in.job_quota = 0
    with pytest.raises(JobNotAccepted, match=r"403: .*exceeded quota"):
        connected().create(job())


def test_an_api_that_is_away_may_come_back(stand_in: Cluster) -> None:
    """A connection that is closed without an answer is told as such, whatever was asked."""
    assert stand_in.stand_in is not None
    api = connected()
    stand_in.stand_in.silent = True
    for ask in (
        lambda: api.create(job()),
        lambda: list(api.list()),
        lambda: api.get("a"),
        lambda: api.delete("a", "u"),
    ):
        with pytest.raises(JobNotAccepted, match="the Kubernetes API cannot be reached: "):
            ask()


def test_refused_credentials_are_read_again(stand_in: Cluster) -> None:
    """After a 401 the next try reads kubeconfig anew, as a rotated token needs it."""
    assert stand_in.stand_in is not None
    sound = stand_in.kubeconfig.read_text()
    stand_in.kubeconfig.write_text(sound.replace("token-of-the-test", "expired"))
    with pytest.raises(JobNotAccepted, match="401"):
        connected().create(job())
    stand_in.kubeconfig.write_text(sound)
    assert connected().create(job()) is True


@pytest.mark.parametrize("content", [None, "", "a: b", "contexts: []\ncurrent-context: x"])
def test_no_cluster_is_told_in_one_line(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig that is not there or leads nowhere is a matter of settings."""
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    connected.cache_clear()
    with pytest.raises(SettingsError, match=r"^no Kubernetes cluster: ") as caught:
        connected()
    assert len(str(caught.value).splitlines()) == 1


def test_in_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without KUBECONFIG a pod asks its own cluster, for the Jobs of its own namespace, with its own token."""
    from kubernetes.config import incluster_config

    for name, content in (("token", "t"), ("ca.crt", "c"), ("namespace", "of-the-pod\n")):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("bridge.kubernetes.job_api._ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("kubernetes.client.ApiClient", lambda configuration: configuration)
    monkeypatch.setattr("kubernetes.client.BatchV1Api", lambda api: api)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    connected.cache_clear()

    api = connected()

    assert api.namespace == "of-the-pod"
    assert api._api.host == "https://10.0.0.1:443"
    assert [setting["value"] for setting in api._api.auth_settings().values()] == ["bearer t"]
    connected.cache_clear()
