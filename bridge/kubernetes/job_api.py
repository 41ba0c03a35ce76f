"""Jobs of one namespace, through the official client: created, listed, deleted, with errors that say what to do.

This module imports ``kubernetes`` (about a second, 60 MB), so it is imported by the first run or command that needs it
and not with the worker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from bridge.errors import JobNotAccepted, JobRefused, SettingsError
from bridge.kubernetes.job_manifest import MANAGED_BY, MANAGER

#: Connecting, reading: seconds.
TIMEOUT_SECONDS = (5, 20)
PAGE = 500
OURS = f"{MANAGED_BY}={MANAGER}"
#: What the API answers to a manifest that it will never take: malformed, invalid, larger than it stores.
_REFUSALS = frozenset({400, 413, 422})
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LONGEST_ERROR = 500


class JobApi:
    """The Jobs of ``namespace``. Methods raise JobNotAccepted when the API cannot or will not do it now."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        """Use ``api``, which knows where the cluster is and who asks."""
        self.namespace = namespace
        self._api = api
        self._jobs = client.BatchV1Api(api)

    def create(self, manifest: Mapping[str, Any]) -> bool:
        """Create a Job; False when one of its name is there already. Raises JobRefused for an invalid manifest."""
        namespace = manifest["metadata"].get("namespace") or self.namespace
        try:
            self._jobs.create_namespaced_job(namespace, dict(manifest), _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            # A 409 has another reason too: a quota that somebody else changes at this moment.
            if error.status == 409 and _status_of(error).get("reason") == "AlreadyExists":
                return False
            if error.status in _REFUSALS:
                raise JobRefused(_text(error)) from None  # its own text would repeat all headers
            raise _not_accepted(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error
        return True

    def list(self, selector: str = OURS) -> Iterator[dict[str, Any]]:
        """Every Job that the label selector takes, as the API's JSON has it, page by page."""
        token: str | None = None
        while True:
            try:
                page = self._jobs.list_namespaced_job(
                    self.namespace,
                    label_selector=selector,
                    limit=PAGE,
                    _continue=token,
                    _request_timeout=TIMEOUT_SECONDS,
                )
            except ApiException as error:
                raise _not_accepted(error) from None
            except urllib3.exceptions.HTTPError as error:
                raise _unreachable(error) from error
            yield from (self._api.sanitize_for_serialization(job) for job in page.items)
            token = page.metadata._continue
            if not token:
                return

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a Job as the API's JSON has it, or None when there is none of this name."""
        try:
            job = self._jobs.read_namespaced_job(name, self.namespace, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status == 404:
                return None
            raise _not_accepted(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error
        found: dict[str, Any] = self._api.sanitize_for_serialization(job)
        return found

    def delete(self, name: str, uid: str) -> bool:
        """Delete this very Job with its pods; False when it is gone, or another one has its name."""
        # Left alone, the API deletes a Job of batch/v1 and leaves its pods.
        options = client.V1DeleteOptions(propagation_policy="Background", preconditions=client.V1Preconditions(uid=uid))
        try:
            self._jobs.delete_namespaced_job(name, self.namespace, body=options, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status in (404, 409):
                return False
            raise _not_accepted(error) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error
        return True


@lru_cache(maxsize=4)
def connected(namespace: str | None = None) -> JobApi:
    """Return the Jobs of ``namespace`` (default: that of the pod, or of kubeconfig's context), once per process.

    ``KUBECONFIG`` comes first, then the pod's service account, then ``~/.kube/config``. Raises SettingsError when there
    is none of them, or it cannot be used.
    """
    configuration = client.Configuration()
    try:
        if in_pod() and not os.environ.get("KUBECONFIG"):
            config.load_incluster_config(client_configuration=configuration)
            own = (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        else:
            # Said each time: the client itself looks at KUBECONFIG when it is imported, and never again.
            paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
            config.load_kube_config(config_file=paths, client_configuration=configuration)
            own = config.list_kube_config_contexts(config_file=paths)[1]["context"].get("namespace") or "default"
    except (ConfigException, OSError) as error:
        raise SettingsError(f"no Kubernetes cluster: {' '.join(str(error).split())}") from error
    return JobApi(client.ApiClient(configuration), namespace or own)


def in_pod() -> bool:
    """Say whether Kubernetes gave this process a service account."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_ACCOUNT / "token").exists()


def _not_accepted(error: ApiException) -> JobNotAccepted:
    if error.status == 401:
        connected.cache_clear()  # the credentials are read again next time
    return JobNotAccepted(_text(error))


def _unreachable(error: Exception) -> JobNotAccepted:
    return JobNotAccepted(f"the Kubernetes API cannot be reached: {' '.join(str(error).split())[:_LONGEST_ERROR]}")


def _text(error: ApiException) -> str:
    text = _status_of(error).get("message") or error.reason or ""
    return f"the Kubernetes API answered {error.status}: {' '.join(str(text).split())[:_LONGEST_ERROR]}"


def _status_of(error: ApiException) -> dict[str, Any]:
    try:
        status = json.loads(error.body or "{}")
    except ValueError:  # a proxy on the way answers in HTML
        return {}
    return status if isinstance(status, dict) else {}
