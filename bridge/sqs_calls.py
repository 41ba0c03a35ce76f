"""The calls made for every ten messages, at a quarter of what they cost through a boto3 client.

A boto3 call takes 2 ms of CPU, nearly all of it Python, and a worker that moves 1,500 messages a second makes 300
of them under one interpreter lock: they were the worker's largest cost (docs/decisions/sqs-calls-by-libcurl.md). So the
three calls that come with every batch are signed by botocore and sent by libcurl (PycURL, which ``celery[sqs]`` brings
for Kombu's own SQS connection). All else stays with boto3, and these calls behave like its: the same arguments, answers
and exceptions; endpoint, region, credentials, proxy and CA bundle are those of a boto3 client that is passed in.
Source of the form: SQS developer guide, "Making Query API requests: AWS JSON protocol".
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import botocore
import pycurl
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import where
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies

from bridge.aws import CONNECT_SECONDS, error_code
from bridge.calls import OK, ended

_UNREACHABLE = {pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY}
_CLOSED = {pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_PARTIAL_FILE}
_TLS = {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE}


class SqsCalls:
    """Three of an SQS client's methods. It may be used by many threads, each of which keeps a connection of its own."""

    def __init__(self, session: Any, client: Any, *, read_seconds: float) -> None:
        """``client`` is a boto3 SQS client of the boto3 ``session``; a call waits ``read_seconds`` for its answer."""
        self._credentials = session.get_credentials
        self._region: str = client.meta.region_name
        self._url: str = client.meta.endpoint_url.rstrip("/") + "/"
        self._read_seconds = read_seconds
        self._connect_seconds = min(CONNECT_SECONDS, read_seconds)
        bundle = session._session.get_config_variable("ca_bundle")  # boto3 shows its botocore session no other way
        self._ca_bundle: str = bundle or where()
        self._proxy: str = get_environ_proxies(self._url).get(self._url.partition(":")[0], "")
        # Not a threading.local: a pool child that is forked later would free it, and libcurl would say goodbye on the
        # parent's TLS connections.
        self._curls: dict[int, pycurl.Curl] = {}

    def receive_message(self, **request: Any) -> dict[str, Any]:
        """Return the answer of ReceiveMessage; arguments and shape as in boto3, binary attributes are bytes."""
        answer = self._call("ReceiveMessage", request)
        for message in answer.get("Messages") or ():
            for value in (message.get("MessageAttributes") or {}).values():
                if "BinaryValue" in value:
                    value["BinaryValue"] = base64.b64decode(value["BinaryValue"])
        return answer

    def delete_message_batch(self, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's names
        """Return the answer of DeleteMessageBatch; arguments and shape as in boto3."""
        return self._call("DeleteMessageBatch", {"QueueUrl": QueueUrl, "Entries": Entries})

    def change_message_visibility_batch(
        self,
        *,
        QueueUrl: str,  # noqa: N803 - boto3's name
        Entries: Sequence[Mapping[str, Any]],  # noqa: N803 - boto3's name
    ) -> dict[str, Any]:
        """Return the answer of ChangeMessageVisibilityBatch; arguments and shape as in boto3."""
        return self._call("ChangeMessageVisibilityBatch", {"QueueUrl": QueueUrl, "Entries": Entries})

    def _call(self, action: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call and count it; raises botocore's ClientError, or its exceptions of the network."""
        try:
            answer = self._exchange(action, json.dumps(request).encode())
        except Exception as error:
            ended(action, request["QueueUrl"], error_code(error))
            raise
        ended(action, request["QueueUrl"], OK)
        return answer

    def _exchange(self, action: str, body: bytes) -> dict[str, Any]:
        signed = AWSRequest(
            "POST",
            self._url,
            headers={"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"},
            data=body,
        )
        credentials = self._credentials()
        if credentials is None:
            raise NoCredentialsError
        SigV4Auth(credentials.get_frozen_credentials(), "sqs", self._region).add_auth(signed)
        curl = self._curls.get(threading.get_ident()) or self._new_curl()
        # Without "Expect:" libcurl would ask before it sends a large body, which costs a round trip.
        curl.setopt(pycurl.HTTPHEADER, [*(f"{name}: {value}" for name, value in signed.headers.items()), "Expect:"])
        curl.setopt(pycurl.POSTFIELDS, body)
        told: list[bytes] = []
        curl.setopt(pycurl.HEADERFUNCTION, told.append)
        try:
            data = curl.perform_rb()
        except pycurl.error as error:
            raise self._network_error(curl, error) from error
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        if status >= 300:
            refusal: Any = _refusal(status, told, data)
            raise ClientError(refusal, action)
        try:
            answer: dict[str, Any] = json.loads(data) if data else {}
        except ValueError as error:
            raise ResponseParserError(f"SQS answered {action} with what is no JSON") from error
        return answer

    def _new_curl(self) -> pycurl.Curl:
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.URL, self._url),
            (pycurl.POST, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.NOSIGNAL, 1),  # timeouts by SIGALRM would be the main thread's
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.CONNECTTIMEOUT_MS, int(self._connect_seconds * 1000)),
            (pycurl.TIMEOUT_MS, int(self._read_seconds * 1000)),
            (pycurl.CAINFO, self._ca_bundle),
            (pycurl.PROXY, self._proxy),  # "" also keeps libcurl from reading the environment by rules of its own
            (pycurl.USERAGENT, f"bucket-brigade botocore/{botocore.__version__} {pycurl.version.split()[0]}"),
        ):
            curl.setopt(option, value)
        self._curls[threading.get_ident()] = curl
        return curl

    def _network_error(self, curl: pycurl.Curl, error: pycurl.error) -> HTTPClientError:
        code, text = error.args[0], str(error.args[1])
        if code == pycurl.E_OPERATION_TIMEDOUT:
            connected = curl.getinfo(pycurl.PRETRANSFER_TIME) > 0
            kind: Any = ReadTimeoutError if connected else ConnectTimeoutError
        elif code in _UNREACHABLE:
            kind = EndpointConnectionError
        elif code in _CLOSED:
            kind = ConnectionClosedError
        else:
            kind = SSLError if code in _TLS else HTTPClientError
        network_error: HTTPClientError = kind(endpoint_url=self._url, error=text)
        return network_error


def _refusal(status: int, head: Sequence[bytes], data: bytes) -> dict[str, Any]:
    """Return an error answer as botocore shows it; the code is the query protocol's, where SQS still says it."""
    try:
        body = json.loads(data)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    code = str(body.get("__type") or status).rpartition("#")[2]
    for line in head:
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() == "x-amzn-query-error":
            code = value.strip().partition(";")[0] or code
    return {
        "Error": {"Code": code, "Message": str(body.get("message") or body.get("Message") or "")},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
