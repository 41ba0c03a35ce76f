"""An HTTP server that behaves like the Kubernetes API for the Jobs of batch/v1, and refuses what Kubernetes would.

Every Job that is sent is checked against Kubernetes' published schemas (``kubernetes-validate``), strictly, and then
for what the schemas do not say but the API server does: names, labels, size of the annotations, restartPolicy. Answers
and errors have the API's form (``Status`` objects). It runs no pods: a test says how a Job ended (PATCH of its status).

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/ and common-definitions/status.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

VERSION = "1.34"
TOKEN = "token-of-the-test"
MAX_ANNOTATIONS_BYTES = 256 * 1024
_PATH = re.compile(r"/apis/batch/v1/namespaces/([a-z0-9-]+)/jobs(?:/([^/]+))?(/status)?")
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    413: "RequestEntityTooLarge",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True)
class ApiCall:
    """One request and its answer; ``finished_at`` is ``time.monotonic()`` when it was about to be sent."""

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    status: int
    finished_at: float


class ApiError(Exception):
    def __init__(self, status: int, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.answer = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or _REASONS[status],
            "code": status,
        }


@dataclass
class KubeStandIn:
    """The server, in threads of this process while the ``with`` block lasts, on a free port of 127.0.0.1.

    ``job_quota``: more Jobs than this in a namespace are refused as a ResourceQuota does. ``fail``: the next requests
    are answered with these errors. ``silent``: connections are closed without an answer, as a dead API server's are.
    ``lost_answers``: so many of the next requests are carried out, and their connections closed without an answer.
    """

    job_quota: int | None = None
    silent: bool = False
    lost_answers: int = 0
    calls: list[ApiCall] = field(default_factory=list)
    jobs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _errors: list[ApiError] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __enter__(self) -> Self:
        stand_in = self

        class Handler(_Handler):
            site = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def fail(self, status: int, message: str = "injected", reason: str | None = None, times: int = 1) -> None:
        """Answer the next requests with this error."""
        with self._lock:
            self._errors += [ApiError(status, message, reason)] * times

    def write_kubeconfig(self, path: Path, namespace: str) -> Path:
        """Write a kubeconfig that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def count(self, method: str) -> int:
        """How many requests of a method there were."""
        with self._lock:
            return sum(call.method == method for call in self.calls)

    # ---- what the API does

    def handle(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self._errors:
                raise self._errors.pop(0)
            found = _PATH.fullmatch(path)
            if found is None:
                raise ApiError(404, "the server could not find the requested resource")
            namespace, name, status = found.groups()
            if method == "POST" and name is None:
                return 201, self._create(namespace, body)
            if method == "GET" and name is None:
                return 200, self._list(namespace, query)
            job = self.jobs.get((namespace, name))
            if job is None:
                raise ApiError(404, f'jobs.batch "{name}" not found')
            if method == "GET":
                return 200, job
            if method == "PATCH" and status:
                job["status"] = {**(job.get("status") or {}), **body["status"]}
                return 200, job
            if method == "DELETE":
                return 200, self._delete(namespace, name, job, body)
            raise ApiError(404, f"{method} of {path} is not part of this stand-in")

    def _create(self, namespace: str, job: dict[str, Any]) -> dict[str, Any]:
        check(job)
        name = job["metadata"]["name"]
        if job["metadata"].get("namespace") not in (None, namespace):
            raise ApiError(400, "the namespace of the provided object does not match the namespace sent on the request")
        if (namespace, name) in self.jobs:
            raise ApiError(409, f'jobs.batch "{name}" already exists', "AlreadyExists")
        used = sum(key[0] == namespace for key in self.jobs)
        if self.job_quota is not None and used >= self.job_quota:
            told = f"requested: count/jobs.batch=1, used: count/jobs.batch={used}, limited: {self.job_quota}"
            raise ApiError(403, f'jobs.batch "{name}" is forbidden: exceeded quota: jobs, {told}')
        created = {
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "resourceVersion": str(len(self.calls) + 1),
        }
        self.jobs[namespace, name] = {**job, "metadata": {**job["metadata"], **created}, "status": {}}
        return self.jobs[namespace, name]

    def _list(self, namespace: str, query: dict[str, str]) -> dict[str, Any]:
        wanted = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        found = [
            job
            for key, job in sorted(self.jobs.items())
            if key[0] == namespace and wanted.items() <= (job["metadata"].get("labels") or {}).items()
        ]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(found)
        rest = start + limit < len(found)
        metadata = {"resourceVersion": "1", **({"continue": str(start + limit)} if rest else {})}
        return {
            "kind": "JobList",
            "apiVersion": "batch/v1",
            "metadata": metadata,
            "items": found[start : start + limit],
        }

    def _delete(self, namespace: str, name: str, job: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        uid = (options.get("preconditions") or {}).get("uid")
        if uid not in (None, job["metadata"]["uid"]):
            raise ApiError(409, f"Precondition failed: UID in precondition: {uid}")
        del self.jobs[namespace, name]
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def check(job: dict[str, Any]) -> None:
    """Raise what the API answers to a Job that it does not take."""
    try:
        kubernetes_validate.validate(job, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ApiError(400, f"Job in version v1 cannot be handled as a Job: {error.message}") from error
    metadata = job["metadata"]
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", metadata.get("name", "")):
        raise ApiError(422, "metadata.name: Invalid value")
    for name, value in (metadata.get("labels") or {}).items():
        if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", value):
            raise ApiError(422, f"metadata.labels: Invalid value: {value!r} of {name}")
    annotations = metadata.get("annotations") or {}
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > MAX_ANNOTATIONS_BYTES:
        raise ApiError(422, f"metadata.annotations: Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes")
    if job["spec"]["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        raise ApiError(422, 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"')


class _Handler(BaseHTTPRequestHandler):
    site: KubeStandIn
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if self.site.silent:
            self.close_connection = True
            return
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise ApiError(401, "Unauthorized")
            status, answer = self.site.handle(self.command, address.path, query, body)
        except ApiError as error:
            status, answer = error.status, error.answer
        call = ApiCall(self.command, address.path, query, body, status, time.monotonic())
        self.site.calls.append(call)
        if self.site.lost_answers > 0:
            self.site.lost_answers -= 1
            self.close_connection = True
            return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815 - the base class looks for these names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""
