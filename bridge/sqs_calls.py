"""The calls made for every ten messages, at a quarter of what they cost through a boto3 client.

A boto3 call takes 2 ms of CPU, nearly all of it Python, and a worker that moves 1,500 messages a second makes 300
of them under one interpreter lock: they were the worker's largest cost (docs/decisions/sqs-calls-by-libcurl.md). So the
three calls that come with every batch are signed by botocore and sent by libcurl (PycURL, which ``celery[sqs]`` brings
for Kombu's own SQS connection). All else stays with boto3, and these calls behave like its: the same arguments, answers
(without ``ResponseMetadata``) and exceptions; endpoint, region, credentials, proxy and CA bundle are those of a boto3
client that is passed in. What differs on purpose: nothing is tried again here, and an answer that is cut short or no
JSON is an error, where botocore takes it for an empty one.
Source of the form: SQS developer guide, "Making requests with the AWS JSON protocol"; awsQueryCompatible, Smithy.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

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
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import ProxyConfiguration, mask_proxy_url, where
from botocore.parsers import JSONParser, ResponseParserError
from botocore.utils import get_environ_proxies

from bridge.aws import CONNECT_SECONDS, error_code
from bridge.calls import OK, ended

_UNREACHABLE = {pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT}
_PROXY = {pycurl.E_COULDNT_RESOLVE_PROXY, pycurl.E_PROXY}
# The last two: what came is no HTTP.
_CLOSED = {
    *(pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_PARTIAL_FILE),
    *(pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_WEIRD_SERVER_REPLY),
}
_TLS = {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE}

#: What a slow answer is given beyond ``read_seconds`` at most; see ``_allow_more``.
LONGEST_EXTRA_SECONDS = 60.0

_all: weakref.WeakSet[SqsCalls] = weakref.WeakSet()


class SqsCalls:
    """Three of an SQS client's methods. It may be used by many threads, each of which keeps a connection of its own."""

    def __init__(self, session: Any, client: Any, *, read_seconds: float) -> None:
        """``client`` is a boto3 SQS client of the boto3 ``session``; a call waits ``read_seconds`` for its answer."""
        self._credentials = session.get_credentials
        self._client = client
        self._url, self._region = endpoint(client)
        self._read_seconds = read_seconds
        self._extra_seconds = 0.0
        self._connect_seconds = min(CONNECT_SECONDS, read_seconds)
        bundle = session._session.get_config_variable("ca_bundle")  # boto3 shows its botocore session no other way
        self._ca_bundle: str = bundle or os.environ.get("REQUESTS_CA_BUNDLE") or where()
        self._proxy: str = ProxyConfiguration(get_environ_proxies(self._url)).proxy_url_for(self._url) or ""
        # Not a threading.local: a pool child that is forked later would free it, see `_forget_connections`.
        self._curls: dict[int, pycurl.Curl] = {}
        _all.add(self)

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
            headers={
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": f"AmazonSQS.{action}",
                "x-amzn-query-mode": "true",  # or SQS would not say its old error codes, which boto3 shows
            },
            data=body,
        )
        credentials = self._credentials()
        if credentials is None:
            raise NoCredentialsError
        SigV4Auth(credentials.get_frozen_credentials(), "sqs", self._region).add_auth(signed)
        curl = self._curls.get(threading.get_ident()) or self._new_curl()
        headers = [f"{name}: {value}" for name, value in signed.headers.items()]
        if "\n" in "".join(headers):  # libcurl would send it so, and what follows as a header or as the body
            raise HTTPClientError(error="the access key id or the session token has a line break in it")
        # Without "Expect:" libcurl would ask before it sends a large body, which costs a round trip.
        curl.setopt(pycurl.HTTPHEADER, [*headers, "Expect:"])
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.TIMEOUT_MS, int((self._read_seconds + self._extra_seconds) * 1000))
        told: list[bytes] = []
        curl.setopt(pycurl.HEADERFUNCTION, told.append)
        try:
            data = curl.perform_rb()
        except pycurl.error as error:
            raise self._network_error(curl, error) from error
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        if status >= 300:
            raise self._refused(action, _refusal(status, told, data))
        return _answer(action, data)

    def _new_curl(self) -> pycurl.Curl:
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.URL, self._url),
            (pycurl.POST, 1),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.NOSIGNAL, 1),  # timeouts by SIGALRM would be the main thread's
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.CONNECTTIMEOUT_MS, int(self._connect_seconds * 1000)),
            (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),  # or newer
            (pycurl.CAINFO, self._ca_bundle),
            (pycurl.PROXY_CAINFO, self._ca_bundle),
            # "" keeps libcurl from reading the environment by rules of its own.
            (pycurl.PROXY, self._proxy),
            (pycurl.NOPROXY, ""),
            (pycurl.USERAGENT, f"{self._client.meta.config.user_agent} {pycurl.version.split()[0]} bucket-brigade"),
        ):
            curl.setopt(option, value)
        # A directory of the system's certificates, where libcurl was built with one: a bundle must not be added to it.
        curl.unsetopt(pycurl.CAPATH)
        curl.unsetopt(pycurl.PROXY_CAPATH)
        self._curls[threading.get_ident()] = curl
        return curl

    def _network_error(self, curl: pycurl.Curl, error: pycurl.error) -> HTTPClientError:
        code, text = error.args[0], str(error.args[1])
        # The times of a connection that is used again are zero until its request was sent.
        connected = curl.getinfo(pycurl.CONNECT_TIME) > 0 or curl.getinfo(pycurl.PRETRANSFER_TIME) > 0
        tunnel_refused = curl.getinfo(pycurl.HTTP_CONNECTCODE) >= 300
        if self._proxy and (code in _PROXY or tunnel_refused or not connected):
            return ProxyConnectionError(proxy_url=mask_proxy_url(self._proxy), error=text)
        if code == pycurl.E_OPERATION_TIMEDOUT:
            self._allow_more(curl)
            kind: Any = ReadTimeoutError if connected else ConnectTimeoutError
        elif code in _UNREACHABLE:
            kind = EndpointConnectionError
        elif code in _CLOSED:
            kind = ConnectionClosedError
        else:
            kind = SSLError if code in _TLS else HTTPClientError
        network_error: HTTPClientError = kind(endpoint_url=self._url, error=text)
        return network_error

    def _allow_more(self, curl: pycurl.Curl) -> None:
        """Let the next calls take longer if this one ran out of time while its answer was arriving.

        botocore's time is that of a silence, libcurl's that of the whole call. On a slow line ten large messages might
        never arrive in time, and be received in vain again and again.
        """
        arriving = curl.getinfo(pycurl.SIZE_DOWNLOAD) > 0
        extra = 2 * self._extra_seconds + self._read_seconds
        self._extra_seconds = min(extra, LONGEST_EXTRA_SECONDS) if arriving else 0.0

    def _refused(self, action: str, refusal: Any) -> ClientError:
        """Return the exception of the client's own that botocore would raise: ``QueueDoesNotExist`` and its kin."""
        error = refusal["Error"]
        kind = self._client.exceptions.from_code(error.get("QueryErrorCode") or error.get("Code"))
        refused: ClientError = kind(refusal, action)
        return refused


def endpoint(client: Any) -> tuple[str, str]:
    """Return the URL that a boto3 SQS client posts to, and the region that its calls are signed for.

    ``client.meta.endpoint_url`` is not always that URL: with FIPS or dual-stack endpoints in some partitions botocore
    decides otherwise at each call. Its event ``before-call`` has what it decided, before anything is signed or sent.
    """
    found: list[tuple[str, str]] = []

    def look(params: Mapping[str, Any], context: Mapping[str, Any], **_: Any) -> None:
        region = (context.get("signing") or {}).get("region") or client.meta.region_name
        found.append((str(params["url"]), str(region)))
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
    """Ends a call that was only begun to look at it."""


def _answer(action: str, data: bytes) -> dict[str, Any]:
    try:
        # As botocore: a member that is null is not there. Hardly an answer has one, and looking for them costs time.
        answer = json.loads(data, object_hook=_without_nulls if b"null" in data else None) if data else {}
    except ValueError as error:
        raise ResponseParserError(f"SQS answered {action} with what is no JSON") from error
    if not isinstance(answer, dict):
        raise ResponseParserError(f"SQS answered {action} with JSON that is no object")
    return answer


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if member is not None}


def _refusal(status: int, head: Sequence[bytes], data: bytes) -> dict[str, Any]:
    """Return an error answer as botocore shows it."""
    headers = {}
    for line in head:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    try:
        parsed: dict[str, Any] = JSONParser().parse({"status_code": status, "headers": headers, "body": data}, None)
    except Exception:  # noqa: BLE001 - no answer of SQS's: a proxy's page in another encoding, JSON of another form
        text = http.client.responses.get(status, "")
        parsed = {"Error": {"Code": str(status), "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return parsed


def _forget_connections() -> None:
    """Cut a forked child off from its parent's connections: freeing one would tell the server that TLS ends."""
    with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - a descriptor, not a path's content
        for calls in _all:
            for curl in calls._curls.values():
                try:
                    socket = curl.getinfo(pycurl.ACTIVESOCKET)
                except pycurl.error:  # in a call of a thread that is not here: never freed, for nobody returns from it
                    continue
                if socket >= 0:
                    os.dup2(nothing.fileno(), socket, inheritable=False)
            calls._curls = {}


os.register_at_fork(after_in_child=_forget_connections)
