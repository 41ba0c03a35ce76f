"""The SQS calls that a worker makes for every ten messages, at less than a third of the cost of a boto3 client.

A boto3 call takes 2 ms of CPU, nearly all of it Python. A worker that moves 1,500 messages per second makes 300 calls
per second under one interpreter lock (docs/decisions/2026-11-22-sqs-calls-by-libcurl.md). So ``bridge.sqs.sigv4``
signs the three batch calls and libcurl sends them (PycURL, which ``celery[sqs]`` installs for Kombu's own SQS
connection). boto3 makes all other calls. These three behave like boto3's: the same arguments, answers (without
``ResponseMetadata``) and exceptions. Endpoint, region, credentials, proxy and CA bundle are those of a given boto3
client. Two things differ on purpose: this module never retries, and an answer that is truncated or not JSON is an
error, where botocore takes it for an empty answer. Sources of the protocol: SQS developer guide, "Making requests with
the AWS JSON protocol"; awsQueryCompatible, Smithy.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pycurl
from botocore.exceptions import ClientError, HTTPClientError, NoCredentialsError
from botocore.httpsession import ProxyConfiguration, where
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies

from bridge.aws_errors import error_code
from bridge.sqs.calls import OK, ended
from bridge.sqs.clients import CONNECT_SECONDS
from bridge.sqs.curl_errors import network_error, refusal
from bridge.sqs.sigv4 import Signer

#: The extra time of a receive after an answer was too slow for ``read_seconds``; at least ``read_seconds`` once more.
#: The sum stays below the limit of the liveness check, which takes a receiver for dead after three times its longest
#: call (bridge/health/liveness.py).
SLOW_ANSWER_SECONDS = 7.5

_all: weakref.WeakSet[SqsCalls] = weakref.WeakSet()


class SqsCalls:
    """Three methods of an SQS client. Many threads may share it; each thread keeps its own connection."""

    def __init__(self, session: Any, client: Any, *, read_seconds: float) -> None:
        """``client`` is a boto3 SQS client of the boto3 ``session``; a call waits ``read_seconds`` for its answer."""
        self._credentials = session.get_credentials
        self._client = client
        self._url, region, self._user_agent = destination(client)
        self._signer = Signer(self._url, region)
        self._read_seconds = read_seconds
        self._extra_seconds = 0.0
        self._connect_seconds = min(CONNECT_SECONDS, read_seconds)
        bundle = session._session.get_config_variable("ca_bundle")  # boto3 offers no public access to it
        self._ca_bundle: str = bundle or os.environ.get("REQUESTS_CA_BUNDLE") or where()
        self._proxy: str = ProxyConfiguration(get_environ_proxies(self._url)).proxy_url_for(self._url) or ""
        # Not a threading.local, which a child forked later would free; see `_leave_to_parent`.
        self._curls: dict[int, pycurl.Curl] = {}
        _all.add(self)

    def receive_message(self, **request: Any) -> dict[str, Any]:
        """Return the answer of ReceiveMessage; arguments and shape as in boto3, binary attributes as bytes."""
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
        """Make one call and count it; raises botocore's ClientError or botocore's network exceptions."""
        try:
            answer = self._exchange(action, json.dumps(request).encode())
        except Exception as error:
            ended(action, request["QueueUrl"], error_code(error))
            raise
        ended(action, request["QueueUrl"], OK)
        return answer

    def _exchange(self, action: str, body: bytes) -> dict[str, Any]:
        credentials = self._credentials()
        if credentials is None:
            raise NoCredentialsError
        headers = self._signer.headers(credentials.get_frozen_credentials(), f"AmazonSQS.{action}", body)
        curl = self._curls.get(threading.get_ident()) or self._new_curl()
        joined = "".join(headers)
        if "\n" in joined or "\r" in joined:  # libcurl would send the rest as another header or as the body
            raise HTTPClientError(error="the access key id or the session token contains a line break")
        # The empty "Expect:" keeps libcurl from asking before it sends a large body, which costs a round trip.
        curl.setopt(pycurl.HTTPHEADER, [*headers, "Expect:"])
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.TIMEOUT_MS, int((self._read_seconds + self._extra_seconds) * 1000))
        head: list[bytes] = []
        curl.setopt(pycurl.HEADERFUNCTION, head.append)
        try:
            data = curl.perform_rb()
        except pycurl.error as error:
            if error.args[0] == pycurl.E_OPERATION_TIMEDOUT and action == "ReceiveMessage":
                self._allow_more(arriving=curl.getinfo(pycurl.RESPONSE_CODE) > 0)
            raise network_error(curl, error, url=self._url, proxy=self._proxy) from error
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        if status >= 300:
            raise self._refused(action, refusal(status, head, data))
        return _answer(action, data)

    def _new_curl(self) -> pycurl.Curl:
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.URL, self._url),
            (pycurl.POST, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.NOSIGNAL, 1),  # SIGALRM timeouts would interrupt the main thread
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.CONNECTTIMEOUT_MS, int(self._connect_seconds * 1000)),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),  # or newer
            (pycurl.CAINFO, self._ca_bundle),
            (pycurl.PROXY_CAINFO, self._ca_bundle),
            # "" keeps libcurl from applying its own rules for the environment's proxy variables.
            (pycurl.PROXY, self._proxy),
            (pycurl.NOPROXY, ""),
            (pycurl.USERAGENT, f"{self._user_agent} {pycurl.version.split()[0]} bucket-brigade"),
        ):
            curl.setopt(option, value)
        # Some builds of libcurl have a directory of system certificates, which must not count beside the bundle.
        curl.unsetopt(pycurl.CAPATH)
        curl.unsetopt(pycurl.PROXY_CAPATH)
        self._curls[threading.get_ident()] = curl
        return curl

    def _allow_more(self, *, arriving: bool) -> None:
        """Extend the timeout of the next receives if this one timed out while its answer was arriving; else reset it.

        botocore's timeout applies to each silence, libcurl's to the whole call. On a slow line ten large messages might
        never arrive in time, so SQS would deliver them again and again without effect.
        """
        self._extra_seconds = max(self._read_seconds, SLOW_ANSWER_SECONDS) if arriving else 0.0

    def _refused(self, action: str, answer: dict[str, Any]) -> ClientError:
        """Return the client's modeled exception that botocore would raise, such as ``QueueDoesNotExist``."""
        code = answer["Error"].get("QueryErrorCode") or answer["Error"].get("Code")
        refused: ClientError = self._client.exceptions.from_code(code)(answer, action)
        return refused


class Destination(NamedTuple):
    """The URL of a client's calls, the region in their signature, and their user agent (``AWS_SDK_UA_APP_ID``)."""

    url: str
    region: str
    user_agent: str


def destination(client: Any) -> Destination:
    """Return where a boto3 SQS client sends its calls, without making a call.

    ``client.meta.endpoint_url`` is not always that URL: with FIPS or dual-stack endpoints in some partitions botocore
    resolves another one per call. Its ``before-call`` event has the resolved URL before anything is signed or sent.
    """
    found: list[Destination] = []

    def look(params: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
        region = (context.get("signing") or {}).get("region") or client.meta.region_name
        found.append(Destination(params["url"], region, params["headers"]["User-Agent"]))
        raise _SeenError

    client.meta.events.register_first("before-call.sqs.ListQueues", look)
    try:
        client.list_queues()
    except _SeenError:
        pass
    finally:
        client.meta.events.unregister("before-call.sqs.ListQueues", look)
    return found[0]


class _SeenError(Exception):
    """Aborts a call that was started only to see its destination."""


def _answer(action: str, data: bytes) -> dict[str, Any]:
    try:
        # As in botocore, a null member counts as absent. Few answers have one, and removing them costs time.
        answer = json.loads(data, object_hook=_without_nulls if b"null" in data else None) if data else {}
    except ValueError as error:
        raise ResponseParserError(f"the answer of SQS to {action} is not JSON") from error
    if not isinstance(answer, dict):
        raise ResponseParserError(f"the answer of SQS to {action} is not a JSON object")
    return answer


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if member is not None}


def _leave_to_parent() -> None:
    """Make a forked child keep its copies of the parent's curl handles unused until it exits, and use new ones.

    Freeing a copy would close the parent's TLS connection on the server. It would also wait for libcurl's resolver
    threads, which exist only in the parent, so the child would hang and die.
    """
    for calls in _all:
        # One extra reference: any other holder ends with the interpreter, which would then free the handles.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(calls._curls))
        calls._curls = {}


os.register_at_fork(after_in_child=_leave_to_parent)
