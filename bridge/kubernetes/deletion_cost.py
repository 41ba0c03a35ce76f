"""A busy worker says so on its own pod, so that a scale-in removes an idle one.

Kubernetes removes the pods of a ReplicaSet with the lowest ``controller.kubernetes.io/pod-deletion-cost`` first, and
asks for few updates of it
(https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost). So there are two marks only:
busy, said at once, and idle, said after half a minute of idleness: under steady work nothing is sent at all, and never
more than twice in half a minute.

A thread of its own asks and sends; whatever becomes of the API server, the worker does not notice. Outside Kubernetes,
or in a pod without its service account's token, there is no such thread. It needs the permission ``patch`` on ``pods``.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import urllib3

from bridge.log import get_logger

log = get_logger(__name__)

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
#: Above the 0 of a pod that says nothing.
BUSY_COST = "100"
LOOK_SECONDS = 1.0
#: A worker that waits for its next message for less than this is not idle yet.
IDLE_SECONDS = 30.0
#: After a failure: doubled each time, up to the longest.
RETRY_SECONDS = 15.0
LONGEST_RETRY_SECONDS = 600.0
#: Where Kubernetes mounts token, ca.crt and namespace
#: (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_SECONDS = 5.0


class PatchRefused(Exception):  # noqa: N818 - says what happened, as bridge.errors does
    """The API server answered with an error."""


class Pod:
    """This pod, as the API server knows it."""

    def __init__(self, name: str, server: str, account: Path) -> None:
        """``server`` is ``https://host:port``; ``account`` holds token, ca.crt and namespace. Raises OSError."""
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        self._url = f"{server}/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        self._token = account / "token"
        self._pool = urllib3.PoolManager(
            num_pools=1,
            ca_certs=str(account / "ca.crt"),
            timeout=urllib3.Timeout(total=_TIMEOUT_SECONDS),
            retries=False,
        )

    def mark(self, *, busy: bool) -> None:
        """Set the annotation, or remove it. Raises PatchRefused, OSError, urllib3.exceptions.HTTPError."""
        body = {"metadata": {"annotations": {ANNOTATION: BUSY_COST if busy else None}}}
        answer = self._pool.request(
            "PATCH",
            self._url,
            body=json.dumps(body),
            headers={
                # Read each time: the kubelet replaces it before it expires.
                "Authorization": f"Bearer {self._token.read_text(encoding='utf-8').strip()}",
                "Content-Type": "application/merge-patch+json",
                "Accept": "application/json",
            },
        )
        if answer.status >= 300:
            raise PatchRefused(f"{answer.status} {answer.reason or ''}".strip())


def this_pod(name: str, environ: Mapping[str, str] | None = None, account: Path | None = None) -> Pod | None:
    """The pod that this process runs in; None outside Kubernetes, or where no token was mounted.

    ``environ`` is the process's environment unless given, ``account`` ACCOUNT.
    """
    given = os.environ if environ is None else environ
    account = account or ACCOUNT
    host = given.get("KUBERNETES_SERVICE_HOST")
    if not host or not all((account / part).is_file() for part in ("token", "ca.crt", "namespace")):
        return None
    port = given.get("KUBERNETES_SERVICE_PORT") or "443"
    return Pod(name, f"https://{f'[{host}]' if ':' in host else host}:{port}", account)


def counts_as_busy(idle_seconds: float) -> bool:
    """Say which mark a pod deserves that has held nothing for ``idle_seconds``. Pure."""
    return idle_seconds < IDLE_SECONDS


def pause_seconds(failures: int) -> float:
    """How long to leave the API alone after so many failures in a row, at least 1. Pure."""
    return min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(failures - 1, 10))


class DeletionCost:
    """Keeps the mark of a pod true."""

    def __init__(self, pod: Pod, is_busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        """``is_busy`` is called once per second from a thread of its own."""
        self._pod = pod
        self._is_busy = is_busy
        self._clock = clock
        # Unknown at first: an earlier process of this pod may have ended while it was busy.
        self._marked: bool | None = None
        self._busy_at = -IDLE_SECONDS + clock()
        self._next_at = clock()
        self._failures = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge-deletion-cost", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the call that is under way."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Send what has changed, if it is time to; raises nothing."""
        now = self._clock()
        try:
            if self._is_busy():
                self._busy_at = now
            mark = counts_as_busy(now - self._busy_at)
            if mark == self._marked or now < self._next_at:
                return
            self._pod.mark(busy=mark)
        except Exception as error:  # noqa: BLE001 - API away, token gone, right missing: none of it is the worker's end
            self._failures += 1
            pause = pause_seconds(self._failures) * random.SystemRandom().uniform(1.0, 1.2)
            self._next_at = self._clock() + pause
            log.warning(
                "deletion_cost_failed",
                delay_seconds=round(pause, 1),
                error_type=type(error).__name__,
                error=" ".join(str(error).split())[:300],
            )
        else:
            self._failures, self._marked = 0, mark
