"""Who called what of AWS: every call through the proxy, as the IAM action and the resource that AWS would look at.

Whose call it was is told by its access key: each role's processes get one named after the role. Sources: AWS's service
authorization reference (which action an API call needs, which resource it is about).
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from tests.support.fault_proxy import FaultProxy, _json_object, _Request
from tests.support.servers.sqs import ACCOUNT, REGION


@dataclass(frozen=True, order=True)
class Use:
    """One permission that one call needed."""

    role: str
    action: str
    resource: str


#: What any credentials may do without a policy.
_FREE = {"sts:GetCallerIdentity"}


class WatchingProxy(FaultProxy):
    """The fault proxy before all of moto; ``uses`` are the permissions that the calls so far needed.

    S3's calls get their operation's name as action, so that faults can be set for them too.
    """

    def __init__(self, upstream_url: str) -> None:
        super().__init__(upstream_url)
        self.uses: set[Use] = set()

    def of(self, role: str) -> set[Use]:
        """The permissions that this role's calls needed."""
        with self._changed:
            return {use for use in self.uses if use.role == role}

    def _answer(self, client: socket.socket, upstream: HTTPConnection, request: _Request) -> bool:
        if request.method != "HEAD":
            return super()._answer(client, upstream, request)
        # The length in the answer to a HEAD is not that of its body, which is none.
        call, _, _ = self._begin(client, request)
        reply = self._forward(upstream, request, call, None)
        self._end(call, "forwarded", reply)
        kept = "".join(f"{name}: {value}\r\n" for name, value in reply.headers if name.lower() != "connection")
        client.sendall(f"HTTP/1.1 {reply.status} \r\n{kept}\r\n".encode("latin-1"))
        return True

    def _begin(self, client: socket.socket, request: _Request) -> Any:
        signed = re.search(r"Credential=([^/]+)/\d+/[^/]*/([^/]+)/", request.headers.get("authorization", ""))
        role, service = (signed[1], signed[2]) if signed else ("nobody", "unsigned")
        operation, needed = permissions(service, request)
        with self._changed:
            self.uses.update(Use(role, action, resource) for action, resource in needed if action not in _FREE)
        named = request
        if service == "s3":  # for the record alone; the server gets the request as it came
            named = request._replace(headers={**request.headers, "x-amz-target": f"S3.{operation}"}, body=b"{}")
        return super()._begin(client, named)


def permissions(service: str, request: _Request) -> tuple[str, list[tuple[str, str]]]:
    """Return the operation, and the actions with the resources that AWS asks the caller's policies about."""
    if service == "s3":
        return _of_s3(request)
    params: dict[str, Any] = _json_object(request.body) or {} if b"{" in request.body[:1] else {}
    form = dict(parse_qsl(request.body.decode("latin-1"))) if b"Action=" in request.body else {}
    path = urlsplit(request.path).path
    operation = request.headers.get("x-amz-target", "").rpartition(".")[2] or form.get("Action", "")
    operation = operation or path.rpartition("/operation/")[2]
    match service:
        case "sqs":
            queue = str(params.get("QueueUrl") or params.get("QueueName") or "").rpartition("/")[2]
            # There are no permissions for batches: each entry needs that of the single call.
            action = operation.removesuffix("Batch")
            return operation, [(f"sqs:{action}", f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")]
        case "dynamodb":
            table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{params['TableName']}"
            return operation, [(f"dynamodb:{operation}", table)]
        case "monitoring":
            return operation, [(f"cloudwatch:{operation}", "*")]
        case "sts":
            return operation, [(f"sts:{operation}", "*")]
    return _unknown(service, request)


_BUCKET = {
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "notification"): "GetBucketNotification",
}


def _of_s3(request: _Request) -> tuple[str, list[tuple[str, str]]]:
    url = urlsplit(request.path)
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    query = parse_qs(url.query, keep_blank_values=True)
    here = f"arn:aws:s3:::{bucket}"
    if not key:
        for (method, word), action in _BUCKET.items():
            if method == request.method and word in query:
                return action, [(f"s3:{action}", here)]
        if request.method not in ("GET", "HEAD"):
            return _unknown("s3", request)
        return ("HeadBucket" if request.method == "HEAD" else "ListObjects"), [("s3:ListBucket", here)]
    there = f"{here}/{key}"
    match request.method:
        case "GET" if "uploadId" in query:
            return "ListParts", [("s3:ListMultipartUploadParts", there)]
        case "GET" | "HEAD":
            action = "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject"
            return ("GetObject" if request.method == "GET" else "HeadObject"), [(action, there)]
        case "PUT" if source := request.headers.get("x-amz-copy-source"):
            path, _, version = unquote(source).lstrip("/").partition("?versionId=")
            read = "s3:GetObjectVersion" if version else "s3:GetObject"
            return "UploadPartCopy", [("s3:PutObject", there), (read, f"arn:aws:s3:::{path}")]
        case "PUT":
            # "If-Match" needs the right to read what it compares.
            read_too = [("s3:GetObject", there)] if "if-match" in request.headers else []
            return ("UploadPart" if "uploadId" in query else "PutObject"), [("s3:PutObject", there), *read_too]
        case "POST" if "uploads" in query or "uploadId" in query:
            start = "uploads" in query
            return ("CreateMultipartUpload" if start else "CompleteMultipartUpload"), [("s3:PutObject", there)]
        case "DELETE" if "uploadId" in query:
            return "AbortMultipartUpload", [("s3:AbortMultipartUpload", there)]
    return _unknown("s3", request)


def _unknown(service: str, request: _Request) -> tuple[str, list[tuple[str, str]]]:
    # No error in here, which would look like a broken connection: no policy allows this, and the test says so.
    return "unknown", [(f"{service}:? {request.method} {request.path}", "*")]


def allows(statement: dict[str, Any], use: Use) -> bool:
    """Say whether a statement of ``template.statements`` allows this. Conditions do not count, nor does Deny."""
    return use.action in statement["Action"] and any(fnmatchcase(use.resource, one) for one in statement["Resource"])


def not_allowed(policy: dict[str, dict[str, Any]], uses: set[Use]) -> set[tuple[str, str]]:
    """Return action and resource of each use that no statement allows."""
    return {(use.action, use.resource) for use in uses if not any(allows(one, use) for one in policy.values())}


def not_used(policy: dict[str, dict[str, Any]], uses: set[Use]) -> set[tuple[str, str, str]]:
    """Return Sid, action and resource of the policy that nobody needed."""
    return {
        (sid, action, resource)
        for sid, statement in policy.items()
        for action in statement["Action"]
        for resource in statement["Resource"]
        if not any(use.action == action and fnmatchcase(use.resource, resource) for use in uses)
    }
